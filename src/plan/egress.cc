// The way out: three children, each of which has one power. The resolver has a socket, the uplink
// the host's network, the proxy the VM's CA; none has two of them.
#include "plan/launch_plan.h"

namespace agent_vm {
namespace {

using Kind = JailMount::Kind;

constexpr int kTapFd = 3;
constexpr int kNameFd = 3;
constexpr int kAuthorityFd = 3;
constexpr int kAuditFd = 4;
constexpr int kDoorFd = 5;
constexpr int kSecretsFd = 6;
// Bodies are never buffered, so this is connections, certificates and Python itself, with room.
constexpr std::uint64_t kMostProxyMemory = 1ULL << 30U;

PlannedChild confined_child(const std::string& name, std::uint32_t id) {
  PlannedChild child;
  child.name = name;
  child.environment = {"PATH=/usr/bin", "LANG=C.UTF-8"};
  child.descriptors = {{DescriptorUse::kLog, 1}, {DescriptorUse::kLog, 2}};
  child.jail.mounts = program_mounts();
  child.jail.ids = {{id, id, 1}};
  child.jail.uid = child.jail.gid = id;
  return child;
}

PlannedChild plan_resolver(const EgressInputs& inputs) {
  PlannedChild child = confined_child("resolver", kResolverId);
  child.argv = {"/resolver", fmt::format("--socket={}", kNameFd)};
  child.descriptors.push_back({DescriptorUse::kNameSocket, kNameFd});
  // Empty: the socket keeps the namespace that it was made in, and there it is bound.
  child.jail.network = Jail::Network::kEmpty;
  child.jail.mounts.push_back({Kind::kBindReadOnly, inputs.resolver, "/resolver"});
  return child;
}

PlannedChild plan_uplink(const EgressInputs& inputs) {
  PlannedChild child = confined_child("uplink", kUplinkId);
  child.argv = {"/uplink", fmt::format("--tap={}", kTapFd)};
  child.descriptors.push_back({DescriptorUse::kUplinkTap, kTapFd});
  child.jail.network = Jail::Network::kHost;
  child.jail.mounts.push_back({Kind::kBindReadOnly, inputs.uplink, "/uplink"});
  // Where it learns who answers the proxy's DNS queries.
  child.jail.mounts.push_back({Kind::kBindReadOnly, "/etc/resolv.conf", "/etc/resolv.conf"});
  child.jail.max_open_files = 4096;  // one per connection
  return child;
}

PlannedChild plan_proxy(const EgressInputs& inputs) {
  PlannedChild child = confined_child("proxy", kProxyId);
  // Isolated (-I): no variable and no folder of a user's says what it imports. No byte code is
  // written (-B); there is nowhere to write it to.
  child.argv = {inputs.python, "-I", "-B", "/proxy/main.py"};
  child.descriptors.push_back({DescriptorUse::kAuthority, kAuthorityFd});
  child.descriptors.push_back({DescriptorUse::kAudit, kAuditFd});
  child.descriptors.push_back({DescriptorUse::kDoor, kDoorFd});
  child.descriptors.push_back({DescriptorUse::kSecrets, kSecretsFd});
  child.jail.network = Jail::Network::kGateway;
  child.jail.mounts.push_back({Kind::kBindReadOnly, inputs.proxy_files, "/proxy"});
  child.jail.mounts.push_back(
      {Kind::kBindReadOnly, inputs.proxy_files + "/resolv.conf", "/etc/resolv.conf"});
  child.jail.mounts.push_back({Kind::kBindReadOnly, inputs.policy_folder, "/policy"});
  child.jail.mounts.push_back({Kind::kBindReadOnly, inputs.certificates, "/certificates.pem"});
  // In memory and of this jail only: mitmproxy reads its CA from a folder.
  child.jail.mounts.push_back({Kind::kTmpfs, "", "/run"});
  child.jail.max_open_files = 4096;
  child.jail.max_data_bytes = kMostProxyMemory;
  return child;
}

}  // namespace

EgressPlan plan_egress(const EgressInputs& inputs) {
  return {plan_resolver(inputs), plan_uplink(inputs), plan_proxy(inputs)};
}

PlannedChild with_private_ranges(PlannedChild uplink, const std::vector<std::string>& ranges) {
  for (const auto& range : ranges) uplink.argv.push_back("--allow=" + range);
  return uplink;
}

}  // namespace agent_vm

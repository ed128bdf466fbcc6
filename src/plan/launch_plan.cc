#include "plan/launch_plan.h"

#include <linux/capability.h>

#include <algorithm>

#include "plan/qemu.h"

namespace agent_vm {
namespace {

using nlohmann::json;

constexpr const char* kJailWorkspace = "/workspace";
constexpr int kShareListenerFd = 3;
constexpr int kSshListenerFd = 3;
constexpr int kMcpListenerFd = 4;
constexpr int kActivityFd = 5;
constexpr int kMcpSocketFd = 6;

// The ids that the share knows: all that the guest may use, and none of the host-side programs'.
// The kernel wants each range of a nested map inside one range of the outer map, so they are the
// same.
std::vector<IdRange> share_ids(const IdMap& outer) {
  std::vector<IdRange> ranges;
  for (const auto& range : outer.uids) {
    if (range.inside >= kFirstHelperId) continue;
    ranges.push_back(
        {range.inside, range.inside, std::min(range.count, kFirstHelperId - range.inside)});
  }
  return ranges;
}

PlannedChild plan_virtiofsd(const PlanInputs& inputs) {
  PlannedChild child;
  child.name = "virtiofsd";
  child.argv = {inputs.programs.virtiofsd, fmt::format("--fd={}", kShareListenerFd)};
  const std::vector<std::string> options =
      inputs.programs.virtiofsd_is_rust
          ? std::vector<std::string>{fmt::format("--shared-dir={}", kJailWorkspace),
                                     "--sandbox=namespace",
                                     "--cache=auto",
                                     "--xattr",
                                     "--rlimit-nofile=0",
                                     "--inode-file-handles=never",
                                     "--log-level=warn"}
          : std::vector<std::string>{"-o",
                                     fmt::format("source={}", kJailWorkspace),
                                     "-o",
                                     "sandbox=namespace",
                                     "-o",
                                     "cache=auto",
                                     "-o",
                                     "log_level=warn",
                                     "-o",
                                     "xattr",
                                     "--rlimit-nofile=0"};
  child.argv.insert(child.argv.end(), options.begin(), options.end());
  child.environment = {"PATH=/usr/bin", "LANG=C"};
  child.descriptors = {{DescriptorUse::kLog, 1},
                       {DescriptorUse::kLog, 2},
                       {DescriptorUse::kShareListener, kShareListenerFd}};

  child.jail.mounts = program_mounts();
  child.jail.mounts.push_back({JailMount::Kind::kBind, inputs.workspace_path, kJailWorkspace});
  // It mounts a /proc of its own pid namespace over this one before it listens to anybody; the
  // kernel allows that only where a /proc is visible already.
  child.jail.mounts.push_back({JailMount::Kind::kBindReadOnly, "/proc", "/proc"});
  // The C version keeps a lock file in /var/run/virtiofsd.
  child.jail.mounts.push_back({JailMount::Kind::kTmpfs, "", "/run"});
  child.jail.mounts.push_back({JailMount::Kind::kTmpfs, "", "/var/run"});
  child.jail.ids = share_ids(inputs.ids);
  // Root of its namespace only. SYS_ADMIN is for entering its own sandbox and
  // SETPCAP for narrowing its bounding set; it drops both before it serves anybody.
  // MKNOD makes FIFOs and sockets; device nodes need it in the host's namespace, which is out of
  // reach.
  child.jail.capabilities = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,  CAP_FSETID,  CAP_SETGID,
                             CAP_SETUID, CAP_MKNOD,        CAP_SETFCAP, CAP_SETPCAP, CAP_SYS_ADMIN};
  child.jail.max_open_files = kMostShareFiles;  // capped by the hard limit
  return child;
}

PlannedChild plan_relay(const PlanInputs& inputs) {
  PlannedChild child;
  child.name = "relay";
  child.argv = {"/relay", fmt::format("--ssh-listener={}", kSshListenerFd),
                fmt::format("--mcp-listener={}", kMcpListenerFd),
                fmt::format("--mcp-socket={}", kMcpSocketFd),
                fmt::format("--activity={}", kActivityFd)};
  child.environment = {"PATH=/usr/bin", "LANG=C"};
  child.descriptors = {{DescriptorUse::kLog, 1},
                       {DescriptorUse::kLog, 2},
                       {DescriptorUse::kSshListener, kSshListenerFd},
                       {DescriptorUse::kMcpListener, kMcpListenerFd},
                       {DescriptorUse::kMcpSocket, kMcpSocketFd},
                       {DescriptorUse::kActivity, kActivityFd}};
  child.jail.network = Jail::Network::kGateway;
  child.jail.mounts = program_mounts();
  child.jail.mounts.push_back({JailMount::Kind::kBindReadOnly, inputs.programs.relay, "/relay"});
  child.jail.ids = {{kRelayId, kRelayId, 1}};
  child.jail.uid = child.jail.gid = kRelayId;
  return child;
}

const char* to_string(JailMount::Kind kind) {
  switch (kind) {
    case JailMount::Kind::kBindReadOnly:
      return "bind-read-only";
    case JailMount::Kind::kBind:
      return "bind";
    case JailMount::Kind::kDevice:
      return "device";
    case JailMount::Kind::kTmpfs:
      return "tmpfs";
    case JailMount::Kind::kSymlink:
      return "symlink";
  }
  return "unknown";
}

const char* to_string(Jail::Network network) {
  switch (network) {
    case Jail::Network::kEmpty:
      return "empty";
    case Jail::Network::kGateway:
      return "gateway";
    case Jail::Network::kHost:
      return "host";
  }
  return "unknown";
}

json ids_to_json(const std::vector<IdRange>& ranges) {
  json list = json::array();
  for (const auto& range : ranges) {
    list.push_back({{"inside", range.inside}, {"outside", range.outside}, {"count", range.count}});
  }
  return list;
}

json jail_to_json(const Jail& jail) {
  json mounts = json::array();
  for (const auto& mount : jail.mounts) {
    json entry = {{"kind", to_string(mount.kind)}, {"target", mount.target}};
    if (!mount.source.empty()) entry["source"] = mount.source;
    mounts.push_back(std::move(entry));
  }
  return {{"network", to_string(jail.network)},
          {"mounts", std::move(mounts)},
          {"ids", ids_to_json(jail.ids)},
          {"uid", jail.uid},
          {"gid", jail.gid},
          {"keeps_groups", jail.keeps_groups},
          {"capabilities", jail.capabilities},
          {"no_new_privileges", true},
          {"max_data_bytes", jail.max_data_bytes},
          {"max_open_files", jail.max_open_files}};
}

json child_to_json(const PlannedChild& child) {
  json descriptors = json::array();
  for (const auto& descriptor : child.descriptors) {
    descriptors.push_back({{"use", to_string(descriptor.use)}, {"number", descriptor.number}});
  }
  return {{"name", child.name},
          {"argv", child.argv},
          {"environment", child.environment},
          {"descriptors", std::move(descriptors)},
          {"jail", jail_to_json(child.jail)}};
}

}  // namespace

const char* to_string(DescriptorUse use) {
  switch (use) {
    case DescriptorUse::kMonitor:
      return "monitor";
    case DescriptorUse::kGuestAgent:
      return "guest-agent";
    case DescriptorUse::kGuestBell:
      return "guest-bell";
    case DescriptorUse::kConsole:
      return "console";
    case DescriptorUse::kTap:
      return "tap";
    case DescriptorUse::kRoot:
      return "root";
    case DescriptorUse::kTemplateRoot:
      return "template-root";
    case DescriptorUse::kImage:
      return "image";
    case DescriptorUse::kDisk:
      return "disk";
    case DescriptorUse::kShareListener:
      return "share-listener";
    case DescriptorUse::kSshListener:
      return "ssh-listener";
    case DescriptorUse::kMcpListener:
      return "mcp-listener";
    case DescriptorUse::kMcpSocket:
      return "mcp-socket";
    case DescriptorUse::kActivity:
      return "activity";
    case DescriptorUse::kUplinkTap:
      return "uplink-tap";
    case DescriptorUse::kNameSocket:
      return "name-socket";
    case DescriptorUse::kSecrets:
      return "secrets";
    case DescriptorUse::kDoor:
      return "proxy socket";
    case DescriptorUse::kAuthority:
      return "authority";
    case DescriptorUse::kAudit:
      return "audit";
    case DescriptorUse::kLog:
      return "log";
  }
  return "unknown";
}

const char* to_string(Accelerator accelerator) {
  return accelerator == Accelerator::kKvm ? "kvm" : "tcg";
}

std::string mac_address_for(const std::string& vm_name) {
  // FNV-1a: only has to spread names, not to withstand anybody.
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : vm_name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return fmt::format("52:54:{:02x}:{:02x}:{:02x}:{:02x}", hash >> 24U & 0xFFU, hash >> 16U & 0xFFU,
                     hash >> 8U & 0xFFU, hash & 0xFFU);
}

Result<LaunchPlan> make_launch_plan(const PlanInputs& inputs) {
  const EgressInputs& egress = inputs.egress;
  for (const auto* path :
       {&inputs.workspace_path, &inputs.memory_path, &inputs.kernel_path, &inputs.initramfs_path,
        &inputs.programs.relay, &egress.uplink, &egress.resolver, &egress.proxy_files,
        &egress.policy_folder, &egress.certificates}) {
    if (!path->starts_with('/')) {
      return fail(ErrorKind::kInternal, "the launch plan needs absolute paths, got '{}'", *path);
    }
  }
  LaunchPlan plan;
  plan.vm_name = inputs.vm_name;
  plan.bind_address = inputs.bind_address;
  plan.ssh_port = inputs.ssh_port;
  plan.mcp_port = inputs.mcp_port;
  plan.mac_address = mac_address_for(inputs.vm_name);
  plan.ids = inputs.ids;
  plan.virtiofsd = plan_virtiofsd(inputs);
  plan.relay = plan_relay(inputs);
  plan.egress = plan_egress(inputs.egress);
  plan.memory_bytes = inputs.memory_bytes;
  plan.qemu = plan_qemu(inputs, QemuStart::kBoot);
  plan.resumed_qemu = plan_qemu(inputs, QemuStart::kResume);
  plan.woken_qemu = plan_qemu(inputs, QemuStart::kWake);
  return plan;
}

json to_json(const LaunchPlan& plan) {
  const PlannedChild& qemu = plan.wakes  ? plan.woken_qemu
                             : plan.warm ? plan.resumed_qemu
                                         : plan.qemu;
  return {
      {"vm_name", plan.vm_name},
      {"listen",
       {{"address", plan.bind_address}, {"ssh_port", plan.ssh_port}, {"mcp_port", plan.mcp_port}}},
      {"mac_address", plan.mac_address},
      {"user_namespace",
       {{"uids", ids_to_json(plan.ids.uids)}, {"gids", ids_to_json(plan.ids.gids)}}},
      {"pid_namespace", "one for all children; its init ends with the supervisor"},
      {"children", {child_to_json(plan.virtiofsd), child_to_json(plan.relay), child_to_json(qemu)}},
      // Only while the network is not off.
      {"egress",
       {child_to_json(plan.egress.resolver), child_to_json(plan.egress.uplink),
        child_to_json(plan.egress.proxy)}}};
}

}  // namespace agent_vm

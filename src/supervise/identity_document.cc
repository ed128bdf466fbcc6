#include "supervise/identity_document.h"

#include <algorithm>
#include <cctype>
#include <chrono>

#include "base/text.h"
#include "launch/egress.h"
#include "launch/secrets.h"
#include "net/address_plan.h"
#include "os/files.h"
#include "os/random.h"
#include "plan/launch_plan.h"
#include "state/authority.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr const char* kMachineIdFile = "machine-id";
constexpr std::size_t kSmall = 65536;

Result<std::string> machine_id(const VmDirectory& vm) {
  if (exists_at(vm.fd(), kMachineIdFile)) {
    return std::string(trim(TRY(read_file_at(vm.fd(), kMachineIdFile, kSmall))));
  }
  const std::string id = TRY(random_hex(16));
  TRY(write_file_atomic(vm.fd(), kMachineIdFile, id + "\n", 0600));
  return id;
}

Result<json> package_settings(const VmDirectory& vm) {
  json settings = json::parse(TRY(vm.read_small_file(kPackageSettings)), nullptr, false);
  if (!settings.is_object()) return fail("{} of the VM cannot be understood", kPackageSettings);
  return settings;
}

Result<json> placeholders(const VmDirectory& vm) {
  if (!exists_at(vm.fd(), kPlaceholders)) return json::object();
  json known = json::parse(TRY(vm.read_small_file(kPlaceholders)), nullptr, false);
  if (!known.is_object()) return fail("{} of the VM cannot be understood", kPlaceholders);
  return known;
}

}  // namespace

std::string hostname_for(const std::string& vm_name) {
  std::string name;
  for (const char c : vm_name) {
    name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '-';
  }
  name.resize(std::min<std::size_t>(name.size(), 63));
  while (name.ends_with('-')) name.pop_back();
  while (name.starts_with('-')) name.erase(0, 1);
  return name.empty() ? "agent-vm" : name;
}

json make_mcp_config(const VmConfig& config) {
  json servers = json::object();
  for (const auto& [name, server] : config.mcp_servers) {
    servers[name] = {
        {"command", server.argv},
        {"env", server.environment},
        {"cwd", server.working_directory.empty() ? "/workspace" : server.working_directory}};
  }
  // Right through the forwarded port: these are the names under which a client of this VM can have
  // asked for it, and a page of another site cannot.
  std::vector<std::string> hosts;
  for (const auto& name :
       {config.host, config.bind_address, std::string("localhost"), std::string("127.0.0.1")}) {
    const std::string host = name.find(':') == std::string::npos
                                 ? fmt::format("{}:{}", name, config.port)
                                 : fmt::format("[{}]:{}", name, config.port);
    if (std::ranges::find(hosts, host) == hosts.end()) hosts.push_back(host);
  }
  // What clients of the Unix socket send; over TCP no page can send it, but one of this very
  // host's.
  hosts.emplace_back("localhost:80");
  return {{"address", kGuestAddress},
          {"port", kGuestMcpPort},
          {"token_file", "/etc/agent-vm/mcp-token"},
          {"allowed_origins", config.allowed_origins},
          {"allowed_hosts", hosts},
          {"default_server", config.default_mcp_server},
          {"servers", std::move(servers)}};
}

Result<json> make_identity_document(const VmDirectory& vm, const VmConfig& config,
                                    const std::string& mac_address) {
  const std::string entropy = TRY(random_bytes(64));
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::string host_key = vm_files::kHostKey;
  const TrustedCertificate authority = TRY(read_authority_certificate(vm.fd()));
  const std::string public_key = std::string(vm_files::kPrivateKey) + ".pub";
  return json{
      {"hostname", hostname_for(vm.name())},
      {"machine_id", TRY(machine_id(vm))},
      {"mac_address", mac_address},
      {"address", kGuestAddress},
      {"prefix", kGatewayPrefix},
      {"gateway", kGatewayAddress},
      {"clock_ns", std::chrono::duration_cast<std::chrono::nanoseconds>(now).count()},
      {"entropy", base64_encode(entropy)},
      {"ssh_host_key", TRY(read_file_at(vm.fd(), host_key, kSmall))},
      {"ssh_host_key_public", TRY(read_file_at(vm.fd(), host_key + ".pub", kSmall))},
      {"authorized_key", std::string(trim(TRY(read_file_at(vm.fd(), public_key, kSmall))))},
      {"mcp_config", make_mcp_config(config).dump(2)},
      {"mcp_token", std::string(trim(TRY(read_file_at(vm.fd(), vm_files::kMcpToken, kSmall))))},
      {"authority", authority.pem},
      {"authority_hash", authority.subject_hash},
      {"packages", TRY(package_settings(vm))},
      {"placeholders", TRY(placeholders(vm))},
      {"sudo", config.sudo},
      {"disk_serial", kDiskSerial},
      {"share_tag", kShareTag},
      {"units", {"ssh.service", "agent-mcp.service"}}};
}

}  // namespace agent_vm

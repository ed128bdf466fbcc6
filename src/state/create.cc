#include "state/create.h"

#include "base/log.h"
#include "config/names.h"
#include "os/files.h"
#include "state/authority.h"
#include "state/keys.h"
#include "state/ports.h"

namespace agent_vm {
namespace {

// Everything but the ports, which are chosen last, under the state directory's lock.
Result<VmConfig> configure(const StateDirectory& state, const CreateRequest& request) {
  const HostResources host = TRY(HostResources::detect());
  VmConfig config = base_config(host, request.owner_settings);
  apply(request.repository_settings, config);
  apply(request.flags, config);
  config.explicit_settings = explicit_settings(request.flags);
  const SourceRepository& source = request.source;
  config.name = request.name.empty() ? make_vm_name(source.name, source.branch) : request.name;
  TRY(valid_vm_name(config.name));
  config.branch = source.branch;
  config.created_at = utc_now();
  config.host = request.host;
  config.bind_address = TRY(resolve_bind_address(request.host));
  config.source_repo = source.top;
  config.origin_repo = source.origin;
  config.upstream_repo = source.upstream;
  const std::string directory = state.path() + "/" + config.name;
  config.workspace_path = directory + "/" + vm_files::kWorkspace;
  config.ssh_key_path = directory + "/" + vm_files::kPrivateKey;
  TRY(validate_for_host(config, host));
  return config;
}

Status choose_ports(const StateDirectory& state, const CreateRequest& request, VmConfig& config) {
  if (request.port && request.port == request.ssh_port) {
    return fail(ErrorKind::kInvalidInput, "port {} cannot serve both MCP and SSH", *request.port);
  }
  config.port = TRY(choose_port(state, {.address = config.bind_address,
                                        .asked = request.port,
                                        .first = kFirstMcpPort,
                                        .avoid = request.ssh_port,
                                        .what = "MCP port"}));
  config.ssh_port = TRY(choose_port(state, {.address = config.bind_address,
                                            .asked = request.ssh_port,
                                            .first = kFirstSshPort,
                                            .avoid = config.port,
                                            .what = "SSH port"}));
  if (request.port) config.explicit_settings.emplace_back(kPortSetting);
  if (request.ssh_port) config.explicit_settings.emplace_back(kSshPortSetting);
  return {};
}

Status refuse_existing(const StateDirectory& state, const std::string& name) {
  if (!exists_at(state.fd(), name)) return {};
  return already_exists(name);
}

}  // namespace

std::vector<std::string> explicit_settings(const Settings& flags) {
  std::vector<std::string> names;
  if (flags.memory_bytes) names.emplace_back("memory");
  if (flags.cpus) names.emplace_back("cpus");
  if (flags.disk_bytes) names.emplace_back("disk");
  if (flags.accel) names.emplace_back("accel");
  if (flags.image_variant) names.emplace_back("image_variant");
  if (flags.allowed_origins) names.emplace_back("allowed_origins");
  if (flags.network_mode) names.emplace_back("network_mode");
  return names;
}

VmConfig base_config(const HostResources& host, const Settings& owner_settings) {
  VmConfig config;
  config.cpus = host.default_cpus();
  apply(owner_settings, config);
  return config;
}

Result<VmConfig> create_vm(const StateDirectory& state, const CreateRequest& request,
                           const Bounds& bounds) {
  VmConfig config = TRY(configure(state, request));
  TRY(refuse_existing(state, config.name));
  {
    // What cannot work is refused before the clone, which may take long. The choice that counts
    // comes after it.
    const DirectoryLock lock = TRY(state.lock(bounds.deadline));
    TRY(choose_ports(state, request, config));
    TRY(validate(config));
  }

  NewVmDirectory directory = TRY(NewVmDirectory::make(state));
  log::info("cloning {} ({}) into {}", request.source.top, request.source.from_ref,
            directory.path());
  TRY(make_workspace(request.source, directory.fd(), directory.path(), request.workspace_owner,
                     bounds));
  log::info("making keys");
  TRY(make_keys(config.name, directory.fd(), directory.path(), bounds));
  TRY(ensure_authority(config.name, directory.fd()));
  TRY(make_directory_at(directory.fd(), vm_files::kLogs, 0700));

  const DirectoryLock lock = TRY(state.lock(bounds.deadline));
  TRY(refuse_existing(state, config.name));
  TRY(choose_ports(state, request, config));
  TRY(validate(config));
  TRY(bounds.check());
  TRY(write_file_atomic(directory.fd(), vm_files::kConfig, to_json_text(config), 0600));
  TRY(directory.commit(config.name));
  return config;
}

}  // namespace agent_vm

#include "state/update.h"

#include "base/log.h"
#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/settings_flags.h"
#include "cli/trust.h"
#include "cli/verbs.h"
#include "config/names.h"
#include "launch/prepare.h"
#include "os/files.h"
#include "state/authority.h"
#include "state/create.h"

namespace agent_vm {
namespace {

using namespace std::chrono_literals;
constexpr auto kLockPatience = 30s;

struct Options {
  std::string vm;
  std::string host;
  std::string port;
  std::string ssh_port;
  SettingsFlags settings;
  bool trust = false;
  bool new_ca = false;
};

Result<UpdateRequest> make_request(const Options& options) {
  UpdateRequest request;
  request.flags = TRY(options.settings.settings());
  if (!options.host.empty()) request.host = options.host;
  if (!options.port.empty()) request.port = TRY(parse_port(options.port, "MCP port"));
  if (!options.ssh_port.empty()) request.ssh_port = TRY(parse_port(options.ssh_port, "SSH port"));
  return request;
}

// The repository may have moved or gone since; its VM is still to be changed.
Result<Settings> repository_settings(Context& context, const VmConfig& config, const VmConfig& base,
                                     bool trust_flag) {
  if (!open_directory(config.source_repo)) {
    log::warn("the repository {} is gone; nothing of its {} applies", config.source_repo,
              kRepositoryFile);
    return Settings();
  }
  return agreed_settings(context, config.source_repo, base, trust_flag);
}

Result<int> update(Context& context, const Options& options) {
  const Deadline deadline = TRY(context.deadline(kLockPatience));
  UpdateRequest request = TRY(make_request(options));
  const StateDirectory state = TRY(context.state());
  const VmDirectory vm = TRY(context.vm(options.vm));
  const VmConfig seen = TRY(vm.read_config());
  const std::string config_path = TRY(owner_config_path());
  request.owner_settings = TRY(read_owner_settings(config_path));
  const HostResources host = TRY(HostResources::detect());
  // Asks, perhaps: without holding any lock.
  request.repository_settings = TRY(
      repository_settings(context, seen, base_config(host, request.owner_settings), options.trust));

  VmConfig before;
  VmConfig after;
  {
    const DirectoryLock lock = TRY(vm.lock(deadline));
    const DirectoryLock state_lock = TRY(state.lock(deadline));
    before = TRY(vm.read_config());
    after = TRY(updated_config(state, before, request));
    if (after != before) TRY(vm.write_config(after));
    if (options.new_ca) TRY(replace_authority(vm.name(), vm.fd()));
  }

  const auto changes = differences(before, after);
  context.out.json(nlohmann::ordered_json::parse(to_json_text(after)));
  if (options.new_ca) context.out.print("Made a new CA for VM {}", vm.name());
  if (changes.empty() && !options.new_ca) {
    context.out.print("VM {} is as it should be: nothing to change", vm.name());
    return kExitOk;
  }
  if (!changes.empty()) context.out.print("Updated VM {}", vm.name());
  for (const auto& change : changes) {
    context.out.print("  {}: {} -> {}", escape_line(change.what),
                      change.from.empty() ? "(none)" : escape_line(change.from),
                      change.to.empty() ? "(none)" : escape_line(change.to));
  }
  if (const auto run = vm.read_run(); run && *run && !(*run)->is_stale()) {
    context.out.print("It is running: this takes effect with agent-vm restart {}", vm.name());
  }
  if (before.disk_bytes != after.disk_bytes && exists_at(vm.fd(), kDiskFile)) {
    context.out.print("The disk has its new size after agent-vm reset {}", vm.name());
  }
  return kExitOk;
}

}  // namespace

void add_update(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, "update", "change a VM's configuration",
               "  agent-vm update x --memory 4G\n"
               "  agent-vm update                  reads the repository's agent-vm.toml again");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_option("--host", options->host, "address for the MCP and SSH ports")
      ->type_name("ADDRESS");
  verb->add_option("--port", options->port, "MCP port")->type_name("PORT");
  verb->add_option("--ssh-port", options->ssh_port, "SSH port")->type_name("PORT");
  options->settings.add_to(*verb);
  verb->add_flag("--trust", options->trust,
                 "agree to what the repository's agent-vm.toml asks for (see: agent-vm trust)");
  verb->add_flag("--new-ca", options->new_ca,
                 "another certificate authority for the VM's proxy, which the guest then trusts");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return update(context, *options); });
}

}  // namespace agent_vm

#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/settings_flags.h"
#include "cli/trust.h"
#include "cli/verbs.h"
#include "config/names.h"
#include "confine/user_namespace.h"
#include "os/interrupt.h"
#include "state/create.h"

namespace agent_vm {
namespace {

struct Options {
  std::string path = ".";
  std::string branch;
  std::string name;
  std::string host = "127.0.0.1";
  std::string port;
  std::string ssh_port;
  SettingsFlags settings;
  bool trust = false;
};

// Given and empty is a mistake (an unset variable in a script), not the default.
Status refuse_empty(const CLI::App& verb) {
  for (const auto* option : verb.get_options()) {
    for (const auto& value : option->results()) {
      if (value.empty() && option->count() > 0) {
        return fail(ErrorKind::kInvalidInput, "{}: an empty value was given", option->get_name());
      }
    }
  }
  return {};
}

// When root runs us, no file of the share may belong to root: the clone is made over to the id that
// dev of the guest has on the host.
Result<std::optional<FileOwner>> workspace_owner() {
  if (::geteuid() != 0) return std::nullopt;
  const IdMap map = TRY(system_id_map());
  return FileOwner{map.outside_uid(kGuestDev), map.outside_gid(kGuestDev)};
}

void report(Context& context, const VmConfig& config, const CreateRequest& request) {
  Output& out = context.out;
  out.json(nlohmann::ordered_json::parse(to_json_text(config)));
  out.print("Created VM {}", out.paint(Colour::kBold, config.name));
  out.print("  Branch:       {}{}", escape_line(config.branch),
            request.source.branch_is_new ? " (new, from HEAD)" : "");
  out.print("  Workspace:    {}", escape_line(config.workspace_path));
  out.print("  MCP Endpoint: {}", escape_line(mcp_endpoint(config)));
  out.print("  SSH port:     {}", config.ssh_port);
  out.print("  Machine:      {} memory, {} cpu{}, {} disk", format_size(config.memory_bytes),
            config.cpus, config.cpus == 1 ? "" : "s", format_size(config.disk_bytes));
  out.print("Start it with: agent-vm start {}", config.name);
}

Result<int> create(Context& context, const Options& options) {
  const Deadline deadline = TRY(context.deadline());
  const Settings flags = TRY(options.settings.settings());
  CreateRequest request{.name = options.name, .host = options.host, .flags = flags};
  if (!options.name.empty()) TRY(valid_vm_name(options.name));
  if (!options.port.empty()) request.port = TRY(parse_port(options.port, "MCP port"));
  if (!options.ssh_port.empty()) request.ssh_port = TRY(parse_port(options.ssh_port, "SSH port"));

  const std::string state_path = TRY(context.state_path());
  request.source =
      TRY(inspect_source(options.path, options.branch, state_path, {.deadline = deadline}));
  const std::string config_path = TRY(owner_config_path());
  request.owner_settings = TRY(read_owner_settings(config_path));
  const HostResources host = TRY(HostResources::detect());
  request.repository_settings = TRY(agreed_settings(
      context, request.source.top, base_config(host, request.owner_settings), options.trust));
  request.workspace_owner = TRY(workspace_owner());
  const StateDirectory state = TRY(context.state_or_new());
  // From here on Ctrl-C is an error like any other, so that everything is cleaned up.
  const InterruptWatch interrupt = TRY(InterruptWatch::start());
  const VmConfig config =
      TRY(create_vm(state, request, {.deadline = deadline, .interrupt_fd = interrupt.fd()}));
  if (config.bind_address == "0.0.0.0" || config.bind_address == "::") {
    log::warn("{} offers the MCP and SSH ports to every network of this machine", config.host);
  }
  report(context, config, request);
  return kExitOk;
}

}  // namespace

void add_create(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(
      app, "create", "a VM for a branch of a repository",
      "  agent-vm create                           the current branch of this repository\n"
      "  agent-vm create --branch try-it           a branch, made from HEAD when it is new\n"
      "  agent-vm create ~/src/app --memory 4G --cpus 4\n"
      "  agent-vm create --branch x --port 8100 --host localhost");
  auto options = std::make_shared<Options>();
  verb->add_option("WORKSPACE", options->path, "a git repository; left out: the current one");
  verb->add_option("--branch", options->branch, "left out: the current branch")->type_name("NAME");
  verb->add_option("--name", options->name, "left out: <repository>-<branch>")->type_name("NAME");
  verb->add_option("--host", options->host, "address for the MCP and SSH ports")
      ->type_name("ADDRESS")
      ->capture_default_str();
  verb->add_option("--port", options->port, "MCP port; left out: the first free one from 8000 up")
      ->type_name("PORT");
  verb->add_option("--ssh-port", options->ssh_port,
                   "SSH port; left out: the first free one from 2222 up")
      ->type_name("PORT");
  options->settings.add_to(*verb);
  verb->add_flag("--trust", options->trust,
                 "agree to what the repository's agent-vm.toml asks for (see: agent-vm trust)");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, verb, options]() -> Result<int> {
    TRY(refuse_empty(*verb));
    return create(context, *options);
  });
}

}  // namespace agent_vm

// Which MCP servers a VM has: mcp list, add, remove and logs.
#include <thread>

#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/mcp_gateway.h"
#include "cli/mcp_npm.h"
#include "cli/mcp_verbs.h"
#include "cli/progress.h"
#include "config/names.h"
#include "control/client.h"
#include "launch/lifecycle.h"

namespace agent_vm {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr auto kPatience = 30s;
constexpr auto kInstallPatience = 20min;  // a guest without KVM takes minutes
constexpr auto kLook = 100ms;

struct Options {
  std::string vm;
  std::string name;
  std::vector<std::string> environment;
  std::string directory;
};

std::string text_of(const json& object, const char* key) {
  const json value = object.is_object() ? object.value(key, json()) : json();
  return value.is_string() ? value.get<std::string>() : value.is_null() ? "" : value.dump();
}

Result<int> list(Context& context, const Options& options) {
  const VmDirectory vm = TRY(context.vm(options.vm));
  const VmConfig config = TRY(vm.read_config());
  const auto details = gateway_details(vm, TRY(context.deadline(kPatience)));
  const json servers = details ? (*details)["servers"] : json::object();
  nlohmann::ordered_json report = nlohmann::ordered_json::array();
  std::vector<std::vector<std::string>> rows{
      {"SERVER", "STATE", "SESSIONS", "RESTARTS", "COMMAND"}};
  const auto add = [&](const std::string& name, const std::string& command) {
    const json state = servers.value(name, json::object());
    const std::string shown = details ? text_of(state, "state") : "stopped";
    rows.push_back({name + (name == config.default_mcp_server ? " (default)" : ""),
                    shown.empty() ? "not loaded" : shown, text_of(state, "sessions"),
                    text_of(state, "restarts"), command});
    report.push_back({{"name", name},
                      {"default", name == config.default_mcp_server},
                      {"command", command},
                      {"state", shown},
                      {"last_failure", text_of(state, "last_failure")}});
  };
  add("workspace", "(built in)");
  for (const auto& [name, server] : config.mcp_servers) add(name, shell_join(server.argv));
  context.out.json(report);
  if (!context.out.json_mode) context.out.table(rows);
  return kExitOk;
}

// Packages of npm's that were installed for a server that is gone, or has another one now.
Status remove_what_nobody_uses(const VmDirectory& vm, const Deadline& deadline) {
  const DirectoryLock lock = TRY(vm.lock(deadline));
  return remove_unused_npm(vm, TRY(vm.read_config()), deadline);
}

// The gateway of a running VM gets what config.json says now, and is asked whether it took it.
Result<bool> apply_to_running(const VmDirectory& vm, const std::string& name, bool present,
                              const Deadline& deadline) {
  const RunState run = TRY(query_run_state(vm, 2s));
  if (run.kind != RunState::Kind::kRunning) return false;
  ControlClient control = TRY(ControlClient::connect(vm.fd()));
  TRY(control.call({{"request", "reload_mcp"}}, deadline));
  while (true) {
    const json details = TRY(gateway_details(vm, deadline));
    if (details["servers"].contains(name) == present) return true;
    if (deadline.expired()) {
      return tl::unexpected(
          Error(ErrorKind::kFailed, "the gateway did not take the new configuration")
              .with_hint(fmt::format("agent-vm logs {}", shell_quote(vm.name()))));
    }
    std::this_thread::sleep_for(kLook);
  }
}

Result<McpServer> server_of(const Context& context, const Options& options) {
  if (context.command.empty()) {
    return tl::unexpected(Error(ErrorKind::kInvalidInput, "no command given")
                              .with_hint("it stands behind --: agent-vm mcp add files -- npx -y "
                                         "@modelcontextprotocol/server-filesystem /workspace"));
  }
  McpServer server;
  server.argv = context.command;
  server.working_directory = options.directory;
  for (const auto& variable : options.environment) {
    const auto equals = variable.find('=');
    if (equals == std::string::npos || equals == 0) {
      return fail(ErrorKind::kInvalidInput, "--env wants NAME=VALUE, not '{}'",
                  escape_line(variable));
    }
    server.environment[variable.substr(0, equals)] = variable.substr(equals + 1);
  }
  return server;
}

// `config` with another server, or another command for one.
Status put_server(VmConfig& config, const std::string& name, const McpServer& server) {
  const std::string mark = mcp_server_setting(name);
  auto& marks = config.explicit_settings;
  config.mcp_servers[name] = server;
  if (std::ranges::find(marks, mark) == marks.end()) marks.push_back(mark);
  return validate(config);
}

// Returns whether there was one of that name. The VM's lock is the caller's.
Result<bool> write_server(const VmDirectory& vm, const std::string& name, const McpServer& server) {
  VmConfig config = TRY(vm.read_config());
  const bool known = config.mcp_servers.contains(name);
  TRY(put_server(config, name, server));
  TRY(vm.write_config(config));
  return known;
}

Result<NpmInstall> install_for(Context& context, const VmDirectory& vm, const NpxCommand& npx,
                               const InterruptWatch& interrupts, const Deadline& deadline) {
  ProgressLine line(context.out);
  const auto show = [&](const std::string& text) { line.show("install", text); };
  NpmInstall install = TRY(NpmInstall::run(vm, npx, interrupts, deadline, show));
  for (const auto& name : install.package().scripts) {
    context.out.note("{} has an install script, which is not run", escape_line(name));
  }
  return install;
}

// How many tools a server that was just added has: that it works is not assumed. Empty, and a line
// for the user, when it does not answer.
std::optional<std::size_t> count_tools(Context& context, const VmDirectory& vm,
                                       const std::string& name, const Deadline& deadline) {
  const auto answer = gateway_request(vm, name, "tools/list", json::object(), deadline);
  const json tools = answer ? answer->value("tools", json()) : json();
  if (tools.is_array()) return tools.size();
  context.out.note("It is there, but does not answer yet: {}",
                   answer ? "it does not list its tools" : answer.error().message());
  context.out.note("See: agent-vm mcp logs {} --server {}", vm.name(), name);
  return {};
}

Result<int> add(Context& context, const Options& options) {
  TRY(valid_mcp_server_name(options.name));
  const VmDirectory vm = TRY(context.vm(options.vm));
  McpServer server = TRY(server_of(context, options));
  const std::optional<NpxCommand> npx = TRY(parse_npx(server.argv));
  const Deadline deadline = TRY(context.deadline(npx ? kInstallPatience : kPatience));
  bool known = false;
  std::string package;
  if (npx) {
    // Until the configuration names it, an interruption has something to clean up.
    const InterruptWatch interrupts = TRY(InterruptWatch::start());
    VmConfig would_be = TRY(vm.read_config());
    TRY(put_server(would_be, options.name, server));  // refused before anything is fetched
    NpmInstall install = TRY(install_for(context, vm, *npx, interrupts, deadline));
    server.argv = install.argv();
    package = npm_package_of(server);
    const DirectoryLock lock = TRY(vm.lock(deadline));
    TRY(interrupts.check());
    TRY(install.keep(deadline));
    known = TRY(write_server(vm, options.name, server));
  } else {
    const DirectoryLock lock = TRY(vm.lock(deadline));
    known = TRY(write_server(vm, options.name, server));
  }
  const bool live = TRY(apply_to_running(vm, options.name, true, deadline));
  if (live && known) TRY(remove_what_nobody_uses(vm, deadline));
  nlohmann::ordered_json report{{"server", options.name}, {"present", true}, {"live", live}};
  context.out.print("{} the MCP server {} of VM {}{}", known ? "Changed" : "Added", options.name,
                    vm.name(),
                    !package.empty() ? ": " + package
                    : live           ? ""
                                     : "; it takes effect at its next start");
  if (npx) {
    report["package"] = package;
    const auto tools = count_tools(context, vm, options.name, deadline);
    report["tools"] = tools ? nlohmann::ordered_json(*tools) : nlohmann::ordered_json();
    if (tools) context.out.print("It answers, and has {} tools", *tools);
  }
  context.out.json(report);
  return kExitOk;
}

Result<int> remove(Context& context, const Options& options) {
  const Deadline deadline = TRY(context.deadline(kPatience));
  TRY(valid_mcp_server_name(options.name));
  const VmDirectory vm = TRY(context.vm(options.vm));
  {
    const DirectoryLock lock = TRY(vm.lock(deadline));
    VmConfig config = TRY(vm.read_config());
    auto& marks = config.explicit_settings;
    const std::string mark = mcp_server_setting(options.name);
    if (!config.mcp_servers.contains(options.name)) {
      return fail(ErrorKind::kNotFound, "VM {} has no MCP server '{}'", vm.name(), options.name);
    }
    if (std::ranges::find(marks, mark) == marks.end()) {
      return tl::unexpected(
          Error(ErrorKind::kInvalidInput,
                fmt::format("the MCP server '{}' comes from a configuration file", options.name))
              .with_hint(fmt::format("remove it there, then: agent-vm update {}",
                                     shell_quote(vm.name()))));
    }
    config.mcp_servers.erase(options.name);
    std::erase(marks, mark);
    if (config.default_mcp_server == options.name) config.default_mcp_server = "workspace";
    TRY(validate(config));
    TRY(vm.write_config(config));
  }
  const bool live = TRY(apply_to_running(vm, options.name, false, deadline));
  if (live) TRY(remove_what_nobody_uses(vm, deadline));
  context.out.json({{"server", options.name}, {"present", false}, {"live", live}});
  context.out.print("Removed the MCP server {} of VM {}{}", options.name, vm.name(),
                    live ? "" : "; it takes effect at its next start");
  return kExitOk;
}

Result<int> logs(Context& context, const Options& options) {
  const VmDirectory vm = TRY(context.vm(options.vm));
  const json details = TRY(gateway_details(vm, TRY(context.deadline(kPatience))));
  const std::string name =
      options.name.empty() ? TRY(vm.read_config()).default_mcp_server : options.name;
  const json server = details["servers"].value(name, json());
  if (!server.is_object()) {
    return fail(ErrorKind::kNotFound, "VM {} has no MCP server '{}'", vm.name(), escape_line(name));
  }
  context.out.json(nlohmann::ordered_json::parse(server.dump()));
  const std::string failure = text_of(server, "last_failure");
  if (!failure.empty()) context.out.note("Last failure: {}", escape_line(failure));
  const json lines = server.value("stderr", json::array());
  for (const auto& line : lines) {
    if (line.is_string()) context.out.print("{}", escape_line(line.get<std::string>()));
  }
  return kExitOk;
}

}  // namespace

void add_mcp_list(CLI::App& mcp, Context& context) {
  CLI::App* verb = add_verb(mcp, "list", "a VM's MCP servers and their states", "");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return list(context, *options); });
}

void add_mcp_add(CLI::App& mcp, Context& context) {
  CLI::App* verb = add_verb(
      mcp, "add", "give a VM another MCP server, or another command for one",
      "  agent-vm mcp add files my-branch -- npx -y "
      "@modelcontextprotocol/server-filesystem /workspace\n"
      "  agent-vm mcp add notes my-branch -- /workspace/tools/notes-server --stdio\n"
      "A running VM has it at once. What npx would fetch at each start is installed in the "
      "VM, once; for that it\nhas to run, and its network policy to allow the package "
      "registry (@npm). Another command has to be there.");
  auto options = std::make_shared<Options>();
  verb->add_option("NAME", options->name, "of the server")->required();
  add_vm_argument(*verb, options->vm);
  verb->add_option("--env", options->environment, "a variable for it; can be repeated")
      ->type_name("NAME=VALUE");
  verb->add_option("--cwd", options->directory, "its folder in the guest")->type_name("DIR");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return add(context, *options); });
}

void add_mcp_remove(CLI::App& mcp, Context& context) {
  CLI::App* verb = add_verb(mcp, "remove", "take back what mcp add gave", "");
  auto options = std::make_shared<Options>();
  verb->add_option("NAME", options->name, "of the server")->required();
  add_vm_argument(*verb, options->vm);
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return remove(context, *options); });
}

void add_mcp_logs(CLI::App& mcp, Context& context) {
  CLI::App* verb = add_verb(mcp, "logs", "the last lines that a server wrote to stderr", "");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_option("--server", options->name, "left out: the default one")->type_name("NAME");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return logs(context, *options); });
}

}  // namespace agent_vm

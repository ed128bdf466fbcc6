// Which MCP servers a VM has: mcp list, add, remove and logs.
#include <thread>

#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/mcp_gateway.h"
#include "cli/mcp_verbs.h"
#include "config/names.h"
#include "control/client.h"
#include "launch/lifecycle.h"

namespace agent_vm {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr auto kPatience = 30s;
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
    return tl::unexpected(
        Error(ErrorKind::kInvalidInput, "no command given")
            .with_hint("it stands behind --: agent-vm mcp add files -- mcp-server-filesystem "
                       "/workspace"));
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

Result<int> change(Context& context, const Options& options, bool adding) {
  const Deadline deadline = TRY(context.deadline(kPatience));
  TRY(valid_mcp_server_name(options.name));
  const VmDirectory vm = TRY(context.vm(options.vm));
  const std::string mark = mcp_server_setting(options.name);
  bool known = false;
  {
    const DirectoryLock lock = TRY(vm.lock(deadline));
    VmConfig config = TRY(vm.read_config());
    known = config.mcp_servers.contains(options.name);
    auto& marks = config.explicit_settings;
    const bool by_hand = std::ranges::find(marks, mark) != marks.end();
    if (adding) {
      config.mcp_servers[options.name] = TRY(server_of(context, options));
      if (!by_hand) marks.push_back(mark);
    } else if (!known) {
      return fail(ErrorKind::kNotFound, "VM {} has no MCP server '{}'", vm.name(), options.name);
    } else if (!by_hand) {
      return tl::unexpected(
          Error(ErrorKind::kInvalidInput,
                fmt::format("the MCP server '{}' comes from a configuration file", options.name))
              .with_hint(fmt::format("remove it there, then: agent-vm update {}",
                                     shell_quote(vm.name()))));
    } else {
      config.mcp_servers.erase(options.name);
      std::erase(marks, mark);
      if (config.default_mcp_server == options.name) config.default_mcp_server = "workspace";
    }
    TRY(validate(config));
    TRY(vm.write_config(config));
  }
  const bool live = TRY(apply_to_running(vm, options.name, adding, deadline));
  const std::string_view done = !adding ? "Removed" : known ? "Changed" : "Added";
  context.out.json({{"server", options.name}, {"present", adding}, {"live", live}});
  context.out.print("{} the MCP server {} of VM {}{}", done, options.name, vm.name(),
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
  CLI::App* verb =
      add_verb(mcp, "add", "give a VM another MCP server, or another command for one",
               "  agent-vm mcp add files my-branch -- mcp-server-filesystem /workspace\n"
               "A running VM has it at once. What the command needs has to be in the image.");
  auto options = std::make_shared<Options>();
  verb->add_option("NAME", options->name, "of the server")->required();
  add_vm_argument(*verb, options->vm);
  verb->add_option("--env", options->environment, "a variable for it; can be repeated")
      ->type_name("NAME=VALUE");
  verb->add_option("--cwd", options->directory, "its folder in the guest")->type_name("DIR");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return change(context, *options, true); });
}

void add_mcp_remove(CLI::App& mcp, Context& context) {
  CLI::App* verb = add_verb(mcp, "remove", "take back what mcp add gave", "");
  auto options = std::make_shared<Options>();
  verb->add_option("NAME", options->name, "of the server")->required();
  add_vm_argument(*verb, options->vm);
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return change(context, *options, false); });
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

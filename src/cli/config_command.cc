#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/verbs.h"

namespace agent_vm {
namespace {

void print_line(Output& out, std::string_view key, std::string_view value) {
  if (!value.empty()) out.print("{:<17}{}", fmt::format("{}:", key), escape_line(value));
}

Result<int> show(Context& context, const std::string& argument) {
  const VmDirectory vm = TRY(context.vm(argument));
  const VmConfig config = TRY(vm.read_config());
  Output& out = context.out;
  out.json(nlohmann::ordered_json::parse(to_json_text(config)));
  print_line(out, "VM", config.name);
  print_line(out, "Branch", config.branch);
  print_line(out, "Repository", config.source_repo);
  print_line(out, "Origin", config.origin_repo);
  print_line(out, "Upstream", config.upstream_repo);
  print_line(out, "Workspace", config.workspace_path);
  print_line(out, "MCP Endpoint", mcp_endpoint(config));
  print_line(out, "SSH", fmt::format("{} port {}", config.bind_address, config.ssh_port));
  print_line(out, "Memory", format_size(config.memory_bytes));
  print_line(out, "CPUs", std::to_string(config.cpus));
  print_line(out, "Disk", format_size(config.disk_bytes));
  print_line(out, "Accel", to_string(config.accel));
  print_line(out, "Image", config.image.variant);
  print_line(out, "Packages", join(config.image.packages, " "));
  print_line(out, "npm packages", join(config.image.npm, " "));
  for (const auto& [name, server] : config.mcp_servers) {
    print_line(out, "MCP server", fmt::format("{}: {}", name, shell_join(server.argv)));
  }
  print_line(out, "Default server", config.default_mcp_server);
  print_line(out, "Allowed origins", join(config.allowed_origins, " "));
  print_line(out, "sudo in guest", config.sudo ? "yes" : "no");
  print_line(out, "Network", to_string(config.network.mode));
  print_line(out, "Created", config.created_at);
  return kExitOk;
}

}  // namespace

void add_config(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "config", "show a VM's configuration",
                            "  agent-vm config x\n"
                            "  agent-vm config x --json");
  auto vm = std::make_shared<std::string>();
  add_vm_argument(*verb, *vm);
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, vm] { return show(context, *vm); });
}

}  // namespace agent_vm

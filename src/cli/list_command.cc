#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/verbs.h"
#include "launch/lifecycle.h"

namespace agent_vm {
namespace {

// One VM as `list` sees it, from its records alone: no VM is asked, so that one that hangs does not
// hold up the list.
struct Row {
  std::string name;
  std::string status;
  std::optional<VmConfig> config;
  std::optional<RunRecord> run;
  std::string problem;
};

Row examine(const StateDirectory& directory, const std::string& name) {
  Row row{.name = name, .status = "Damaged"};
  const auto vm = directory.vm(name);
  if (!vm) {
    row.problem = vm.error().message();
    return row;
  }
  const auto config = vm->read_config();
  const auto run = vm->read_run();
  if (!config || !run) {
    row.problem = config ? run.error().message() : config.error().message();
    return row;
  }
  row.config = *config;
  row.run = *run;
  if (row.run && !row.run->is_stale()) {
    row.status = "Running";
    return row;
  }
  // Nobody is there to be asked: this, too, comes from records alone.
  if (const auto state = query_run_state(*vm, std::nullopt)) {
    row.status = to_string(state->kind);
  }
  return row;
}

nlohmann::ordered_json to_json(const Row& row) {
  nlohmann::ordered_json object = {{"vm_name", row.name}, {"status", row.status}};
  if (!row.problem.empty()) object["problem"] = row.problem;
  if (!row.config) return object;
  const VmConfig& config = *row.config;
  object["branch"] = config.branch;
  object["source_repo"] = config.source_repo;
  object["host"] = config.host;
  object["port"] = row.run ? row.run->port : config.port;
  object["ssh_port"] = row.run ? row.run->ssh_port : config.ssh_port;
  object["memory_bytes"] = config.memory_bytes;
  object["cpus"] = config.cpus;
  object["workspace_path"] = config.workspace_path;
  object["created_at"] = config.created_at;
  return object;
}

Result<int> list(Context& context) {
  std::vector<Row> rows;
  const auto state = context.state();
  if (state) {
    const std::vector<std::string> names = TRY(state->names());
    for (const auto& name : names) rows.push_back(examine(*state, name));
  } else if (state.error().kind() != ErrorKind::kNotFound) {
    return tl::unexpected(state.error());
  }

  auto json = nlohmann::ordered_json::array();
  for (const auto& row : rows) json.push_back(to_json(row));
  context.out.json(json);
  if (rows.empty()) {
    context.out.print("No VMs. Make one for this repository with: agent-vm create");
    return kExitOk;
  }
  std::vector<std::vector<std::string>> table{
      {"NAME", "STATUS", "BRANCH", "MCP", "SSH", "MEMORY", "CPUS", "REPOSITORY"}};
  for (const auto& row : rows) {
    if (!row.config) {
      table.push_back({row.name, row.status, row.problem});
      continue;
    }
    const VmConfig& config = *row.config;
    table.push_back(
        {row.name, row.status, config.branch, std::to_string(row.run ? row.run->port : config.port),
         std::to_string(row.run ? row.run->ssh_port : config.ssh_port),
         format_size(config.memory_bytes), std::to_string(config.cpus), config.source_repo});
  }
  context.out.table(table);
  return kExitOk;
}

}  // namespace

void add_list(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "list", "all VMs, with their state and ports",
                            "  agent-vm list\n"
                            "  agent-vm list --json");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context] { return list(context); });
}

}  // namespace agent_vm

// What a VM's MCP servers can do, and doing it: mcp tools and mcp call.
#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/mcp_gateway.h"
#include "cli/mcp_verbs.h"
#include "config/names.h"

namespace agent_vm {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr auto kPatience = 2min;
constexpr int kMaxPages = 100;

struct Options {
  std::string vm;
  std::string server;
  std::string tool;
  std::string arguments = "{}";
};

Result<int> tools(Context& context, const Options& options) {
  const Deadline deadline = TRY(context.deadline(kPatience));
  if (!options.server.empty()) TRY(valid_mcp_server_name(options.server));
  const VmDirectory vm = TRY(context.vm(options.vm));
  json all = json::array();
  json params = json::object();
  for (int page = 0; page < kMaxPages; ++page) {
    const json result = TRY(gateway_request(vm, options.server, "tools/list", params, deadline));
    for (const auto& tool : result.value("tools", json::array())) all.push_back(tool);
    if (!result.contains("nextCursor")) break;
    params["cursor"] = result["nextCursor"];
  }
  context.out.json(nlohmann::ordered_json::parse(all.dump()));
  if (context.out.json_mode) return kExitOk;
  std::vector<std::vector<std::string>> rows{{"TOOL", "DESCRIPTION"}};
  for (const auto& tool : all) {
    if (!tool.is_object()) continue;
    const auto text = [&](const char* key) {
      const json value = tool.value(key, json());
      return value.is_string() ? value.get<std::string>() : std::string();
    };
    const std::string description = text("description");
    rows.push_back({text("name"), description.substr(0, description.find('\n'))});
  }
  context.out.table(rows);
  return kExitOk;
}

Result<int> call(Context& context, const Options& options) {
  const Deadline deadline = TRY(context.deadline(kPatience));
  if (!options.server.empty()) TRY(valid_mcp_server_name(options.server));
  const json arguments = json::parse(options.arguments, nullptr, false);
  if (!arguments.is_object()) {
    return fail(ErrorKind::kInvalidInput, "--arguments wants a JSON object, not '{}'",
                escape_line(options.arguments));
  }
  const VmDirectory vm = TRY(context.vm(options.vm));
  const json params = {{"name", options.tool}, {"arguments", arguments}};
  const json result = TRY(gateway_request(vm, options.server, "tools/call", params, deadline));
  context.out.json(nlohmann::ordered_json::parse(result.dump()));
  for (const auto& part : result.value("content", json::array())) {
    if (!part.is_object()) continue;
    const json text = part.value("text", json());
    context.out.print("{}", text.is_string() ? escape_control(text.get<std::string>())
                                             : escape_line(part.dump().substr(0, 200)));
  }
  return result.value("isError", json(false)) == true ? kExitFailed : kExitOk;
}

}  // namespace

void add_mcp_tools(CLI::App& mcp, Context& context) {
  CLI::App* verb = add_verb(mcp, "tools", "the tools of an MCP server of a VM", "");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_option("--server", options->server, "left out: the default one")->type_name("NAME");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return tools(context, *options); });
}

void add_mcp_call(CLI::App& mcp, Context& context) {
  CLI::App* verb =
      add_verb(mcp, "call", "call a tool; exit status 1 when it says that it failed",
               "  agent-vm mcp call read my-branch --arguments '{\"path\": \"README.md\"}'");
  auto options = std::make_shared<Options>();
  verb->add_option("TOOL", options->tool, "its name")->required();
  add_vm_argument(*verb, options->vm);
  verb->add_option("--server", options->server, "left out: the default one")->type_name("NAME");
  verb->add_option("--arguments", options->arguments, "a JSON object")->type_name("JSON");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return call(context, *options); });
}

}  // namespace agent_vm

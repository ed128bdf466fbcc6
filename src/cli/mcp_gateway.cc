#include "cli/mcp_gateway.h"

#include "base/text.h"
#include "control/event_parser.h"
#include "control/mcp_exchange.h"

namespace agent_vm {
namespace {

using nlohmann::json;

constexpr const char* kRevision = "2026-07-28";

Task<void> exchange(McpEndpoint endpoint, McpRequest request, Deadline deadline,
                    std::string& message, std::optional<Result<McpAnswer>>& answer) {
  McpExchange one;
  const McpExchange::OnMessage keep_last = [&](const std::string& text, const std::string&) {
    message = text;
  };
  answer = co_await one.run(std::move(endpoint), std::move(request), keep_last, deadline);
}

Result<json> ask(const VmDirectory& vm, McpRequest request, const Deadline& deadline) {
  asio::io_context io(1);
  std::string message;
  std::optional<Result<McpAnswer>> answer;
  McpEndpoint endpoint = TRY(mcp_endpoint_of(vm));
  start_detached(io, exchange(std::move(endpoint), std::move(request), deadline, message, answer));
  // The deadline bounds the whole here: there is nobody to take pieces of a stream.
  if (deadline.is_never()) {
    io.run();
  } else {
    io.run_until(deadline.at());
  }
  if (!answer) return fail(ErrorKind::kTimeout, "the server did not answer in time");
  if (!*answer && answer->error().kind() == ErrorKind::kNotRunning) {
    return tl::unexpected(
        Error(ErrorKind::kNotRunning, fmt::format("VM {} does not answer", vm.name()))
            .with_hint(fmt::format("agent-vm start {}", shell_quote(vm.name()))));
  }
  const McpAnswer got = TRY(std::move(*answer));
  const std::string& text = got.stream ? message : got.body;
  json value = json::parse(text, nullptr, false);
  if (!value.is_object()) return fail("the gateway answered with status {} only", got.status);
  return value;
}

}  // namespace

Result<json> gateway_details(const VmDirectory& vm, const Deadline& deadline) {
  McpRequest request;
  request.method = "GET";
  request.target = "/health";
  json details = TRY(ask(vm, std::move(request), deadline));
  if (!details.contains("servers") || !details["servers"].is_object()) {
    return fail("the gateway does not tell about its servers");
  }
  return details;
}

Result<json> gateway_request(const VmDirectory& vm, const std::string& server,
                             const std::string& method, json params, const Deadline& deadline) {
  params["_meta"] = {
      {"io.modelcontextprotocol/protocolVersion", kRevision},
      {"io.modelcontextprotocol/clientInfo", {{"name", "agent-vm"}, {"version", "1"}}},
      {"io.modelcontextprotocol/clientCapabilities", json::object()}};
  McpRequest request;
  request.target = server.empty() ? "/mcp" : "/servers/" + server + "/mcp";
  request.headers = {{"MCP-Protocol-Version", kRevision}, {"Mcp-Method", method}};
  if (params.contains("name") && params["name"].is_string()) {
    request.headers.emplace_back(
        "Mcp-Name", "=?base64?" + base64_encode(params["name"].get<std::string>()) + "?=");
  }
  request.body = json({{"jsonrpc", "2.0"}, {"id", 1}, {"method", method}, {"params", params}})
                     .dump(-1, ' ', false, json::error_handler_t::replace);
  const json answer = TRY(ask(vm, std::move(request), deadline));
  if (answer.contains("result") && answer["result"].is_object()) return answer["result"];
  const json error = answer.value("error", json::object());
  const bool told = error.is_object() && error.contains("message") && error["message"].is_string();
  const std::string why = told ? error["message"].get<std::string>() : "an answer without a result";
  return fail("{}: {}", method, escape_line(why));
}

}  // namespace agent_vm

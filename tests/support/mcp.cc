#include "support/mcp.h"

#include <gmock/gmock.h>
#include <strings.h>

#include "base/text.h"

namespace agent_vm::test {

McpClient::McpClient(std::uint16_t port, std::string token)
    : port_(port), token_(std::move(token)) {
  const auto hello = post(
      R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",)"
      R"("capabilities":{},"clientInfo":{"name":"test","version":"1"}}})");
  EXPECT_EQ(hello.status, 200) << hello.body;
  for (const auto& line : split_lines(hello.headers)) {
    const auto colon = line.find(": ");
    if (colon != std::string::npos && colon == std::string("mcp-session-id").size() &&
        ::strncasecmp(line.c_str(), "mcp-session-id", colon) == 0)
      session_ = trim(line.substr(colon + 2));
  }
  EXPECT_NE(session_, "") << hello.headers;
  post(R"({"jsonrpc":"2.0","method":"notifications/initialized"})");
}

HttpReply McpClient::post(const std::string& body) const {
  std::vector<std::string> headers{"Authorization: Bearer " + token_,
                                   "Content-Type: application/json",
                                   "Accept: application/json, text/event-stream"};
  if (!session_.empty()) headers.push_back("Mcp-Session-Id: " + session_);
  return http_request(port_, "POST", "/servers/workspace/mcp", headers, body);
}

std::string McpClient::call(const std::string& tool, const nlohmann::json& arguments) const {
  const nlohmann::json request = {{"jsonrpc", "2.0"},
                                  {"id", 2},
                                  {"method", "tools/call"},
                                  {"params", {{"name", tool}, {"arguments", arguments}}}};
  const auto reply = post(request.dump());
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_THAT(reply.body, testing::Not(testing::HasSubstr("\"isError\":true"))) << reply.body;
  return reply.body;
}

std::vector<std::string> McpClient::exec_argv(const std::string& command) const {
  const nlohmann::json request = {
      {"jsonrpc", "2.0"},
      {"id", 3},
      {"method", "tools/call"},
      {"params", {{"name", "exec"}, {"arguments", {{"command", command}, {"timeout", 0}}}}}};
  return {"curl",
          "-sS",
          "--max-time",
          "120",
          "-H",
          "Authorization: Bearer " + token_,
          "-H",
          "Content-Type: application/json",
          "-H",
          "Accept: application/json, text/event-stream",
          "-H",
          "Mcp-Session-Id: " + session_,
          "-d",
          request.dump(),
          fmt::format("http://127.0.0.1:{}/servers/workspace/mcp", port_)};
}

}  // namespace agent_vm::test

// One MCP session with the built-in server `workspace`, over the VM's endpoint.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support/http.h"

namespace agent_vm::test {

class McpClient {
 public:
  McpClient(std::uint16_t port, std::string token);
  // A session that was opened before, maybe by another one.
  McpClient(std::uint16_t port, std::string token, std::string session)
      : port_(port), token_(std::move(token)), session_(std::move(session)) {}

  const std::string& session() const { return session_; }
  HttpReply post(const std::string& body) const;
  // The body of the answer, which must be no error.
  std::string call(const std::string& tool, const nlohmann::json& arguments) const;
  // A program (curl) that runs a command by `exec`, for as long as that takes.
  std::vector<std::string> exec_argv(const std::string& command) const;

 private:
  std::uint16_t port_;
  std::string token_;
  std::string session_;
};

}  // namespace agent_vm::test

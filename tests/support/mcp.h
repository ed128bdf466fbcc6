// One MCP session with the built-in server `workspace`, over the VM's endpoint.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "support/http.h"

namespace agent_vm::test {

class McpClient {
 public:
  McpClient(std::uint16_t port, std::string token);

  const std::string& session() const { return session_; }
  HttpReply post(const std::string& body) const;
  // The body of the answer, which must be no error.
  std::string call(const std::string& tool, const nlohmann::json& arguments) const;

 private:
  std::uint16_t port_;
  std::string token_;
  std::string session_;
};

}  // namespace agent_vm::test

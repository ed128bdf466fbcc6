// HTTP by hand, so that a test can send what no client library would.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace agent_vm::test {

struct HttpReply {
  int status = 0;  // 0: no answer
  std::string headers;
  std::string body;
};

// One request on a connection of its own to 127.0.0.1. `headers` without Host are given one that
// the endpoint accepts.
HttpReply http_request(std::uint16_t port, const std::string& method, const std::string& target,
                       const std::vector<std::string>& headers, const std::string& body = "");

// The same on the Unix socket `name` of a directory, with "Host: localhost", as clients of such
// sockets send it.
HttpReply http_request_unix(const std::string& directory, const std::string& name,
                            const std::string& method, const std::string& target,
                            const std::vector<std::string>& headers, const std::string& body = "");

}  // namespace agent_vm::test

// A real request to a VM's MCP endpoint: `status` reports what was answered, never what is hoped
// (M1).
#pragma once

#include <cstdint>
#include <string>

#include "base/deadline.h"
#include "base/result.h"
#include "os/async.h"

namespace agent_vm {

struct HttpAnswer {
  int status = 0;
  std::string body;         // at most 64 KiB, the guest's text
  double milliseconds = 0;  // from connect to the last byte
};

// GET `target` from `address`:`port` with that Host header; `token` as bearer when not empty.
Result<HttpAnswer> http_get(const std::string& address, std::uint16_t port, const std::string& host,
                            const std::string& target, const std::string& token,
                            const Deadline& deadline);

// The same inside an event loop.
Task<Result<HttpAnswer>> http_get_async(std::string address, std::uint16_t port, std::string host,
                                        std::string target, std::string token, Deadline deadline);

}  // namespace agent_vm

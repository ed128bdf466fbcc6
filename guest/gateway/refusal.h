// Responses that say no.
#pragma once

#include <string_view>

#include "gateway/connection.h"
#include "mcp/server_side.h"

namespace agent_vm::gateway {

inline Response refusal(const mcp::Refusal& why) {
  Response response;
  response.status = why.status;
  response.body =
      mcp::error_message(why.error.id, why.error.code, why.error.message, why.error.data);
  if (why.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (why.status == 503 || why.status == 429) response.headers.emplace_back("Retry-After", "2");
  return response;
}

inline Response refusal(int status, int code, std::string_view message,
                        std::string_view id = "null") {
  return refusal(mcp::refuse(code, std::string(message), id, status));
}

}  // namespace agent_vm::gateway

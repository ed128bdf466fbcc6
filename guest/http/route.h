// What a request target names.
#pragma once

#include <string>
#include <string_view>

namespace agent_vm::http {

enum class RouteKind {
  kHealth,      // /health
  kMcp,         // /mcp, /servers/<name>/mcp: Streamable HTTP
  kLegacySse,   // /sse, /servers/<name>/sse: the transport of 2024-11-05
  kLegacyPost,  // /messages, /servers/<name>/messages?sessionId=...: its other half
  kUnknown,
};

struct Route {
  RouteKind kind = RouteKind::kUnknown;
  std::string server;  // empty: the default server
  std::string query;   // without the question mark
};

Route parse_target(std::string_view target);

// The value of `key` in a query whose values need no decoding, or empty.
std::string query_value(std::string_view query, std::string_view key);

}  // namespace agent_vm::http

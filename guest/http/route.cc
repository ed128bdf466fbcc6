#include "http/route.h"

#include "base/text.h"

namespace agent_vm::http {
namespace {

RouteKind endpoint(std::string_view name) {
  if (name == "mcp") return RouteKind::kMcp;
  if (name == "sse") return RouteKind::kLegacySse;
  if (name == "messages") return RouteKind::kLegacyPost;
  return RouteKind::kUnknown;
}

}  // namespace

Route parse_target(std::string_view target) {
  Route route;
  const std::size_t mark = target.find('?');
  if (mark != std::string_view::npos) route.query = target.substr(mark + 1);
  std::string_view path = target.substr(0, mark);
  if (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const std::vector<std::string> parts = split(path, '/');  // "/a/b" -> "", "a", "b"
  if (parts.size() < 2 || !parts[0].empty()) return route;
  if (parts.size() == 2) {
    route.kind = parts[1] == "health" ? RouteKind::kHealth : endpoint(parts[1]);
  } else if (parts.size() == 4 && parts[1] == "servers" && !parts[2].empty()) {
    route.kind = endpoint(parts[3]);
    route.server = parts[2];
  }
  return route;
}

std::string query_value(std::string_view query, std::string_view key) {
  for (const std::string& pair : split(query, '&')) {
    const std::size_t equals = pair.find('=');
    if (equals != std::string::npos && std::string_view(pair).substr(0, equals) == key) {
      return pair.substr(equals + 1);
    }
  }
  return {};
}

}  // namespace agent_vm::http

// Who may talk to the gateway: pure decisions on header values.
//
// Order, on every route: Host, Origin, then the token. The first two come before authentication so
// that a page of a foreign site, or a name rebound to this address, learns nothing at all, and
// nothing is started for it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace agent_vm::http {

// An origin is compared as a whole: scheme, host and port, byte for byte after lower-casing and
// after removing a default port. No patterns: "*.example.com" would be one look-alike away.
class OriginPolicy {
 public:
  // Each must be an origin ("https://claude.ai", "http://localhost:6274") and nothing more.
  static Result<OriginPolicy> make(const std::vector<std::string>& allowed);
  // A request without an Origin is no browser's cross-site request; "null" is any sandboxed page's.
  bool allows(std::optional<std::string_view> origin) const;

 private:
  std::vector<std::string> allowed_;
};

// Which Host values name this gateway. Behind a forwarded port and through a Unix socket the client
// still writes the name that it dialled, so the list names what users dial: "localhost" allows any
// port, "localhost:8000" only that one.
class HostPolicy {
 public:
  static Result<HostPolicy> make(const std::vector<std::string>& allowed);
  bool allows(std::string_view host) const;

 private:
  struct Entry {
    std::string name;
    std::string port;  // empty: any
  };
  std::vector<Entry> allowed_;
};

// Compares without telling, by its duration, how long a common prefix is.
bool equal_in_constant_time(std::string_view a, std::string_view b);

// Whether an Authorization value carries this bearer token.
bool bearer_matches(std::string_view authorization, std::string_view token);

// "application/json; charset=utf-8" is application/json.
bool media_type_is(std::string_view content_type, std::string_view expected);

// Whether an Accept value lists a type, directly or by a wildcard, with a quality above 0. An
// absent Accept accepts everything, but callers of MCP must send one.
bool accepts(std::string_view accept, std::string_view type);

}  // namespace agent_vm::http

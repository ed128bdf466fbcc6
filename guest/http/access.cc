#include "http/access.h"

#include <algorithm>

#include "base/text.h"

namespace agent_vm::http {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

bool is_host_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

struct HostPort {
  std::string host;  // lower case; an IPv6 address with its brackets
  std::string port;  // digits without leading zeros, or empty
};

// host[:port], strictly: what does not parse is not allowed.
std::optional<HostPort> parse_host_port(std::string_view text) {
  const std::string value = lower(text);
  std::size_t end = 0;
  if (!value.empty() && value.front() == '[') {
    end = value.find(']');
    if (end == std::string::npos) return {};
    ++end;
    const bool address =
        std::all_of(value.begin() + 1, value.begin() + static_cast<long>(end) - 1, [](char c) {
          return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == ':' || c == '.';
        });
    if (!address || end < 4) return {};
  } else {
    while (end < value.size() && is_host_character(value[end])) ++end;
    if (end == 0) return {};
  }
  HostPort result{value.substr(0, end), ""};
  if (end == value.size()) return result;
  if (value[end] != ':') return {};
  const auto port = parse_unsigned(std::string_view(value).substr(end + 1));
  if (!port || *port == 0 || *port > 65535) return {};
  result.port = std::to_string(*port);
  return result;
}

// Canonical form of an origin, or nothing when it is not one.
std::optional<std::string> canonical_origin(std::string_view text) {
  const std::size_t mark = text.find("://");
  if (mark == std::string_view::npos) return {};
  const std::string scheme = lower(text.substr(0, mark));
  const bool valid_scheme =
      !scheme.empty() && std::all_of(scheme.begin(), scheme.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
      });
  const auto host = parse_host_port(text.substr(mark + 3));
  if (!valid_scheme || !host) return {};
  std::string port = host->port;
  if ((scheme == "https" && port == "443") || (scheme == "http" && port == "80")) port.clear();
  return scheme + "://" + host->host + (port.empty() ? "" : ":" + port);
}

}  // namespace

Result<OriginPolicy> OriginPolicy::make(const std::vector<std::string>& allowed) {
  OriginPolicy policy;
  for (const std::string& text : allowed) {
    const auto origin = canonical_origin(text);
    if (!origin) {
      return fail(
          ErrorKind::kInvalidInput,
          "\"{}\" is not an origin: write scheme://host or scheme://host:port, nothing more",
          escape_line(text));
    }
    policy.allowed_.push_back(*origin);
  }
  return policy;
}

bool OriginPolicy::allows(std::optional<std::string_view> origin) const {
  if (!origin) return true;
  const auto canonical = canonical_origin(*origin);
  return canonical && std::find(allowed_.begin(), allowed_.end(), *canonical) != allowed_.end();
}

Result<HostPolicy> HostPolicy::make(const std::vector<std::string>& allowed) {
  HostPolicy policy;
  for (const std::string& text : allowed) {
    const auto host = parse_host_port(text);
    if (!host) {
      return fail(ErrorKind::kInvalidInput, "\"{}\" is not a host: write name or name:port",
                  escape_line(text));
    }
    policy.allowed_.push_back({host->host, host->port});
  }
  return policy;
}

bool HostPolicy::allows(std::string_view host) const {
  auto parsed = parse_host_port(host);
  // What a client leaves out is the default.
  if (parsed && parsed->port.empty()) parsed->port = "80";
  return parsed && std::any_of(allowed_.begin(), allowed_.end(), [&](const Entry& entry) {
           return entry.name == parsed->host && (entry.port.empty() || entry.port == parsed->port);
         });
}

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  // The length of the expected token is no secret; its bytes are.
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const char other = b.empty() ? '\0' : b[i % b.size()];
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(other);
  }
  return difference == 0;
}

bool bearer_matches(std::string_view authorization, std::string_view token) {
  constexpr std::string_view kScheme = "bearer ";
  if (token.empty() || authorization.size() <= kScheme.size()) return false;
  if (lower(authorization.substr(0, kScheme.size())) != kScheme) return false;
  return equal_in_constant_time(trim(authorization.substr(kScheme.size())), token);
}

bool media_type_is(std::string_view content_type, std::string_view expected) {
  return lower(trim(content_type.substr(0, content_type.find(';')))) == expected;
}

bool accepts(std::string_view accept, std::string_view type) {
  const std::string family = std::string(type.substr(0, type.find('/'))) + "/*";
  for (const std::string& item : split(accept, ',')) {
    const std::vector<std::string> parts = split(item, ';');
    const std::string name = lower(trim(parts.front()));
    if (name != type && name != family && name != "*/*") continue;
    const bool excluded = std::any_of(parts.begin() + 1, parts.end(), [](const std::string& part) {
      const std::string parameter = lower(trim(part));
      return parameter.starts_with("q=0") &&
             parameter.find_first_not_of("0.", 2) == std::string::npos;
    });
    if (!excluded) return true;
  }
  return false;
}

}  // namespace agent_vm::http

#include "config/names.h"

#include <algorithm>
#include <array>

#include "base/text.h"

namespace agent_vm {
namespace {

constexpr std::size_t kMaxName = 63;  // of one label of a host name

bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_alnum(char c) {
  return is_lower(c) || is_digit(c) || (c >= 'A' && c <= 'Z');
}
bool is_one_of(char c, std::string_view set) {
  return set.find(c) != std::string_view::npos;
}

// For messages: a 300-character name is not shown whole.
std::string shown(std::string_view text) {
  constexpr std::size_t kShown = 80;
  if (text.size() <= kShown) return escape_line(text);
  return fmt::format("{}... ({} characters)", escape_line(text.substr(0, kShown)), text.size());
}

// FNV-1a: tells names apart after they were cut; nothing depends on it being hard to collide.
std::uint32_t short_hash(std::string_view text) {
  std::uint32_t hash = 2166136261U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  return hash;
}

bool valid_host(std::string_view host) {
  if (host.starts_with('[')) {  // an IPv6 literal
    return host.size() > 3 && host.ends_with(']') &&
           std::ranges::all_of(host.substr(1, host.size() - 2),
                               [](char c) { return is_one_of(c, "0123456789abcdefABCDEF:."); });
  }
  return !host.empty() && !host.starts_with('.') && !host.starts_with('-') &&
         host.find("..") == std::string_view::npos &&
         std::ranges::all_of(host, [](char c) { return is_alnum(c) || is_one_of(c, ".-"); });
}

}  // namespace

Status valid_vm_name(std::string_view name) {
  constexpr std::array<std::string_view, 1> kReserved{"trash"};
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorKind::kInvalidInput, "'{}' cannot be the name of a VM: {}", shown(name), why);
  };
  if (name.empty()) return refuse("it is empty");
  if (name.size() > kMaxName) return refuse("it is longer than 63 characters");
  if (!std::ranges::all_of(name, [](char c) { return is_alnum(c) || is_one_of(c, "-_."); })) {
    return refuse("only letters, digits, '-', '_' and '.' may be in it");
  }
  if (!is_alnum(name.front())) return refuse("it must start with a letter or a digit");
  // Names become parts of refs/remotes/agent-vm/<name>/, where git refuses these.
  if (name.find("..") != std::string_view::npos) return refuse("it contains '..'");
  if (name.ends_with('.') || name.ends_with(".lock")) return refuse("it ends in '.' or '.lock'");
  if (std::ranges::find(kReserved, name) != kReserved.end()) {
    return refuse("the state directory uses that name itself");
  }
  return {};
}

std::string make_vm_name(std::string_view repository, std::string_view branch) {
  const std::string whole = fmt::format("{}-{}", repository, branch);
  std::string name;
  for (const char c : whole) {
    const char kept = is_alnum(c) || is_one_of(c, "-_.") ? c : '-';
    const bool doubled_dot = kept == '.' && name.ends_with('.');
    if (name.empty() && !is_alnum(kept)) continue;
    name += doubled_dot ? '-' : kept;
  }
  if (name.empty()) name = "vm";
  while (name.ends_with('.')) name.back() = '-';
  if (name.ends_with(".lock")) name[name.size() - 5] = '-';
  if (name.size() > kMaxName) {
    const std::string suffix = fmt::format("-{:08x}", short_hash(whole));
    name = name.substr(0, kMaxName - suffix.size()) + suffix;
  }
  return valid_vm_name(name) ? name : "vm-" + name.substr(0, kMaxName - 3);
}

Status valid_package_name(std::string_view name) {
  const bool ok = name.size() >= 2 && name.size() <= 128 &&
                  (is_lower(name.front()) || is_digit(name.front())) &&
                  std::ranges::all_of(name, [](char c) {
                    return is_lower(c) || is_digit(c) || is_one_of(c, "+-.");
                  });
  if (ok) return {};
  return fail(ErrorKind::kInvalidInput, "'{}' is not the name of a Debian package", shown(name));
}

Status valid_npm_spec(std::string_view spec) {
  const auto part = [](std::string_view text) {
    return !text.empty() && !is_one_of(text.front(), ".-") && std::ranges::all_of(text, [](char c) {
      return is_lower(c) || is_digit(c) || is_one_of(c, "._-~");
    });
  };
  std::string_view name = spec;
  bool ok = spec.size() <= 214;
  if (name.starts_with('@')) {
    const auto slash = name.find('/');
    ok = ok && slash != std::string_view::npos && part(name.substr(1, slash - 1));
    name = slash == std::string_view::npos ? "" : name.substr(slash + 1);
  }
  if (const auto at = name.find('@'); at != std::string_view::npos) {
    // A version or a dist-tag; never a URL, a path or an alias, which npm would fetch from
    // anywhere.
    const auto version = name.substr(at + 1);
    ok = ok && !version.empty() &&
         std::ranges::all_of(version, [](char c) { return is_alnum(c) || is_one_of(c, ".-+^~"); });
    name = name.substr(0, at);
  }
  if (ok && part(name)) return {};
  return fail(ErrorKind::kInvalidInput,
              "'{}' is not the name of an npm package; write name, @scope/name or name@1.2.3",
              shown(spec));
}

std::string npm_package_name(std::string_view spec) {
  return std::string(spec.substr(0, spec.find('@', 1)));
}

Status valid_image_variant(std::string_view variant) {
  const auto good = [](const std::string& name) {
    return !name.empty() && is_alnum(name.front()) &&
           std::ranges::all_of(name, [](char c) { return is_alnum(c) || is_one_of(c, "-_"); });
  };
  if (variant.size() <= 256 && std::ranges::all_of(split(variant, '+'), good)) return {};
  return fail(ErrorKind::kInvalidInput,
              "'{}' is not the name of an image variant, nor several joined by '+'",
              shown(variant));
}

Status valid_mcp_server_name(std::string_view name) {
  // As the gateway in the guest takes it.
  const auto is_small = [](char c) { return is_alnum(c) && (c < 'A' || c > 'Z'); };
  const bool ok =
      !name.empty() && name.size() <= 64 && is_small(name.front()) &&
      std::ranges::all_of(name, [&](char c) { return is_small(c) || is_one_of(c, "-_"); });
  if (ok) return {};
  return fail(ErrorKind::kInvalidInput,
              "'{}' cannot be the name of an MCP server: it is a part of its URL, so only small "
              "letters, digits, '-' and '_' may be in it",
              shown(name));
}

Status valid_origin(std::string_view origin) {
  std::string_view rest = origin;
  bool ok = false;
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (!rest.starts_with(scheme)) continue;
    rest.remove_prefix(scheme.size());
    ok = true;
    break;
  }
  const auto bracket = rest.rfind(']');
  const auto colon = rest.rfind(':');
  if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
    ok = ok && parse_port(rest.substr(colon + 1), "port").has_value();
    rest = rest.substr(0, colon);
  }
  if (ok && valid_host(rest)) return {};
  return fail(ErrorKind::kInvalidInput,
              "'{}' is not an origin; write scheme, host and an optional port, such as "
              "https://claude.ai or http://localhost:3000",
              shown(origin));
}

Status valid_environment_name(std::string_view name) {
  const bool ok = !name.empty() && !is_digit(name.front()) &&
                  std::ranges::all_of(name, [](char c) { return is_alnum(c) || c == '_'; });
  if (ok) return {};
  return fail(ErrorKind::kInvalidInput, "'{}' cannot be the name of an environment variable",
              shown(name));
}

Result<std::uint16_t> parse_port(std::string_view text, std::string_view what) {
  const auto number = parse_unsigned(text);
  if (!number || *number < 1 || *number > 65535) {
    return fail(ErrorKind::kInvalidInput, "the {} '{}' is not a number from 1 to 65535", what,
                shown(text));
  }
  return static_cast<std::uint16_t>(*number);
}

}  // namespace agent_vm

#include "config/network_policy.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "config/git_rule.h"
#include "config/ip_range.h"

namespace agent_vm {
namespace {

// In the order of what they allow.
constexpr std::array<std::pair<NetworkMode, std::string_view>, 3> kModes{
    {{NetworkMode::kOff, "off"},
     {NetworkMode::kAllowlist, "allowlist"},
     {NetworkMode::kMonitor, "monitor"}}};

constexpr std::size_t kMaxRule = 1024;
constexpr std::size_t kMaxRules = 1000;

bool is_label(std::string_view label) {
  return !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-' &&
         std::ranges::all_of(label, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
         });
}

Status take_methods(std::string_view text, NetworkRule& rule) {
  for (const auto& method : split(text, ',')) {
    const bool ok = !method.empty() && method.size() <= 32 &&
                    std::ranges::all_of(method, [](char c) { return c >= 'A' && c <= 'Z'; });
    if (!ok) {
      return fail(ErrorKind::kInvalidInput, "'{}' is not a list of methods, such as GET,HEAD",
                  escape_line(text));
    }
    rule.methods.push_back(method);
  }
  return {};
}

Status take_target(std::string_view text, NetworkRule& rule) {
  const auto slash = text.find('/');
  rule.host = lower(text.substr(0, slash));
  if (slash != std::string_view::npos) rule.path = text.substr(slash);
  const bool wildcard = rule.host.starts_with("*.");
  TRY(valid_host_name(std::string_view(rule.host).substr(wildcard ? 2 : 0)));
  if (!rule.path.empty() && rule.path.find_first_of("?#%\\") != std::string::npos) {
    return fail(ErrorKind::kInvalidInput,
                "the path '{}' cannot be matched: write it decoded and without a query",
                escape_line(rule.path));
  }
  return {};
}

}  // namespace

Status valid_host_name(std::string_view host) {
  const auto labels = split(host, '.');
  const bool well_formed =
      host.size() <= 253 && labels.size() >= 2 && std::ranges::all_of(labels, is_label);
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (!well_formed || std::ranges::all_of(labels.back(), is_digit) ||
      labels.back().starts_with("0x")) {
    return fail(ErrorKind::kInvalidInput,
                "'{}' is not a host name; write one such as api.example.org or *.example.org, an "
                "international one in its xn-- form, without scheme and port",
                escape_line(host));
  }
  return {};
}

std::string_view to_string(NetworkMode mode) {
  return std::ranges::find(kModes, mode, &decltype(kModes)::value_type::first)->second;
}

Result<NetworkMode> parse_network_mode(std::string_view text) {
  for (const auto& [mode, name] : kModes) {
    if (name == text) return mode;
  }
  return fail(ErrorKind::kInvalidInput,
              "network mode '{}' is not one of off, allowlist and monitor", escape_line(text));
}

bool is_wider(NetworkMode mode, NetworkMode than) {
  return static_cast<int>(mode) > static_cast<int>(than);
}

Result<NetworkRule> parse_network_rule(std::string_view text) {
  if (text.size() > kMaxRule || escape_line(text) != text) {
    return fail(ErrorKind::kInvalidInput, "'{}' is not a rule: it is too long or has control bytes",
                escape_line(text.substr(0, 80)));
  }
  std::vector<std::string> words;
  for (const auto& word : split(text, ' ')) {
    if (!word.empty()) words.push_back(word);
  }
  NetworkRule rule;
  if (words.size() >= 3 && words[words.size() - 2] == "in") {
    TRY(parse_ip_range(words.back()));
    rule.range = words.back();
    words.resize(words.size() - 2);
  }
  if (words.empty() || words.size() > 2) {
    return fail(ErrorKind::kInvalidInput,
                "'{}' is not a rule; write [METHODS] HOST[/PATH] [in RANGE], such as: GET "
                "files.example.org/public/*",
                escape_line(text));
  }
  if (words.size() == 2) TRY(take_methods(words[0], rule));
  TRY(take_target(words.back(), rule));
  return rule;
}

Status valid_network_entry(std::string_view text) {
  if (is_git_rule(text)) return valid_git_rule(text);
  if (!text.starts_with('@')) {
    TRY(parse_network_rule(text));
    return {};
  }
  if (std::ranges::find(kPresets, text) != std::end(kPresets)) return {};
  const std::vector<std::string> known(std::begin(kPresets), std::end(kPresets));
  return fail(ErrorKind::kInvalidInput, "there is no preset '{}'; there are {}", escape_line(text),
              join(known, ", "));
}

std::vector<std::string> default_network_allow() {
  return {"@apt", "@git-origin", "@npm", "@pip"};
}

Status validate(const NetworkPolicy& policy) {
  for (const auto* list : {&policy.allow, &policy.deny, &policy.owner_allow, &policy.owner_deny}) {
    if (list->size() > kMaxRules) {
      return fail(ErrorKind::kInvalidInput, "{} network rules are too many: at most {}",
                  list->size(), kMaxRules);
    }
    for (const auto& entry : *list) TRY(valid_network_entry(entry));
  }
  return {};
}

}  // namespace agent_vm

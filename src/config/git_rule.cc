#include "config/git_rule.h"

#include <algorithm>

#include "base/text.h"

namespace agent_vm {
namespace {

constexpr std::string_view kScheme = "ssh://";
constexpr std::string_view kFetch = "fetch";
constexpr std::string_view kPush = "push";
constexpr std::size_t kMaxPath = 512;

// What needs no quoting and no decoding anywhere.
bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-' || c == '+';
}

Status valid_path(std::string_view path, bool pattern) {
  const auto bad = [&] {
    return fail(ErrorKind::kInvalidInput,
                "'{}' is not the path of a repository: letters, digits and ._+-/ without '..'",
                escape_line(path.substr(0, 80)));
  };
  if (path.starts_with('/')) path.remove_prefix(1);
  if (path.empty() || path.size() > kMaxPath) return bad();
  for (const std::string_view part : split(path, '/')) {
    if (part.empty() || part == "." || part == ".." || part.starts_with('-')) return bad();
    if (!std::ranges::all_of(part, [&](char c) { return is_plain(c) || (pattern && c == '*'); }))
      return bad();
  }
  return {};
}

Status valid_user(std::string_view user) {
  if (user.empty() || user.size() > 64 || user.starts_with('-') ||
      !std::ranges::all_of(user, is_plain)) {
    return fail(ErrorKind::kInvalidInput, "'{}' is not a user's name",
                escape_line(user.substr(0, 80)));
  }
  return {};
}

std::string_view canonical(std::string_view path) {
  if (path.starts_with('/')) path.remove_prefix(1);
  if (path.ends_with(".git")) path.remove_suffix(4);
  return path;
}

bool matches(std::string_view pattern, std::string_view text) {
  const auto star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == text;
  if (!text.starts_with(pattern.substr(0, star))) return false;
  pattern.remove_prefix(star + 1);
  for (std::size_t from = star; from <= text.size(); ++from) {
    if (matches(pattern, text.substr(from))) return true;
  }
  return false;
}

Result<GitRequest> parse(std::string_view url, bool push, bool pattern) {
  if (!url.starts_with(kScheme)) {
    return fail(ErrorKind::kInvalidInput,
                "'{}' is not a repository behind SSH, such as ssh://git@git.example.org/team/app",
                escape_line(url.substr(0, 200)));
  }
  url.remove_prefix(kScheme.size());
  GitRequest request{.push = push, .user = "git"};
  const auto slash = std::min(url.find('/'), url.size());
  std::string_view authority = url.substr(0, slash);
  request.path = url.substr(slash);
  if (const auto at = authority.find('@'); at != std::string_view::npos) {
    request.user = authority.substr(0, at);
    authority.remove_prefix(at + 1);
  }
  if (const auto colon = authority.find(':'); colon != std::string_view::npos) {
    const auto port = parse_unsigned(authority.substr(colon + 1));
    if (!port || *port == 0 || *port > 65535) {
      return fail(ErrorKind::kInvalidInput, "'{}' is not a port",
                  escape_line(authority.substr(colon + 1)));
    }
    request.port = static_cast<std::uint16_t>(*port);
    authority = authority.substr(0, colon);
  }
  request.host = lower(authority);
  TRY(valid_user(request.user));
  TRY(valid_host_name(request.host));
  TRY(valid_path(request.path, pattern));
  return request;
}

Result<GitRequest> parse_rule(std::string_view text) {
  const auto space = text.find(' ');
  return parse(trim(text.substr(space)), text.substr(0, space) == kPush, true);
}

bool matches(const GitRequest& rule, const GitRequest& request) {
  return rule.user == request.user && rule.host == request.host && rule.port == request.port &&
         matches(canonical(rule.path), canonical(request.path));
}

}  // namespace

bool is_git_rule(std::string_view text) {
  const auto word = text.substr(0, text.find(' '));
  return (word == kFetch || word == kPush) && word.size() < text.size();
}

Status valid_git_rule(std::string_view text) {
  TRY(parse_rule(text));
  return {};
}

std::string GitRequest::as_rule() const {
  const std::string at_port = port == 22 ? "" : fmt::format(":{}", port);
  return fmt::format("{} ssh://{}@{}{}/{}", push ? kPush : kFetch, user, host, at_port,
                     canonical(path));
}

Status validate(const GitRequest& request) {
  TRY(valid_user(request.user));
  TRY(valid_host_name(request.host));
  TRY(valid_path(request.path, false));
  if (request.port == 0) return fail(ErrorKind::kInvalidInput, "0 is not a port");
  return {};
}

Result<GitRequest> parse_git_url(std::string_view url, bool push) {
  return parse(url, push, false);
}

GitDecision decide(const NetworkPolicy& policy, const GitRequest& request) {
  if (policy.mode == NetworkMode::kOff) return {false, "mode off", "the network of this VM is off"};
  const auto find = [&](const std::vector<std::string>& list, bool allows) -> const std::string* {
    for (const auto& text : list) {
      if (!is_git_rule(text)) continue;
      const auto rule = parse_rule(text);
      // An allowing `push` speaks of both, a refusing one of pushing alone.
      const bool speaks =
          rule && (allows ? rule->push || !request.push : !rule->push || request.push);
      if (speaks && matches(*rule, request)) return &text;
    }
    return nullptr;
  };
  for (const auto* list : {&policy.owner_deny, &policy.deny}) {
    if (const auto* rule = find(*list, false)) return {false, *rule, "a rule refuses it"};
  }
  for (const auto* list : {&policy.owner_allow, &policy.allow}) {
    if (const auto* rule = find(*list, true)) return {true, *rule, ""};
  }
  return {false, fmt::format("mode {}", to_string(policy.mode)), "no rule allows it"};
}

}  // namespace agent_vm

#include "config/secrets.h"

#include <algorithm>

#include "base/text.h"
#include "config/names.h"
#include "config/network_policy.h"

namespace agent_vm {
namespace {

bool is_header_name(std::string_view text) {
  return !text.empty() && text.size() <= 100 && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
  });
}

Status valid_secret_host(const std::string& host) {
  const NetworkRule rule = TRY(parse_network_rule(host));
  if (rule.methods.empty() && rule.path.empty() && rule.range.empty()) return {};
  return fail(ErrorKind::kInvalidInput,
              "'{}' is more than a host; a secret goes to hosts, such as api.example.org",
              escape_line(host));
}

}  // namespace

Status validate_secret(const std::string& name, const SecretSource& secret) {
  TRY(valid_environment_name(name));
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorKind::kInvalidInput, "secret '{}': {}", name, why);
  };
  const int sources = (secret.environment.empty() ? 0 : 1) + (secret.file.empty() ? 0 : 1) +
                      (secret.command.empty() ? 0 : 1);
  if (sources != 1) return refuse("it needs one of 'env', 'file' and 'command'");
  if (!secret.environment.empty()) TRY(valid_environment_name(secret.environment));
  if (!secret.file.empty() && !secret.file.starts_with('/'))
    return refuse("'file' must be an absolute path");
  if (secret.hosts.empty()) return refuse("'hosts' names nobody who may get it");
  for (const auto& host : secret.hosts) TRY_CONTEXT(valid_secret_host(host), "secret '{}'", name);
  if (!is_header_name(secret.header)) return refuse("'header' is not the name of a header");
  return {};
}

}  // namespace agent_vm

// What a VM may reach on the web: a mode, and rules in the form in which people write them.
//
//   api.example.org                      this host
//   *.example.org                        every host below it, and not example.org itself
//   GET,HEAD files.example.org/public/*  these methods, these paths; `*` stands for anything
//   git.corp.example in 10.1.0.0/16      also when the name leads to this private range
//   @npm                                 what this machine's own configuration names
//
// A refusing rule is stronger than an allowing one; what no rule names is decided by the mode.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace agent_vm {

enum class NetworkMode {
  kOff,        // nothing connects the guest to the world
  kAllowlist,  // what a rule allows
  kMonitor,    // every public web host, unless a rule refuses it; everything is recorded
};
std::string_view to_string(NetworkMode mode);  // "off", "allowlist", "monitor"
Result<NetworkMode> parse_network_mode(std::string_view text);
// Whether `mode` lets a VM reach more than `than` does.
bool is_wider(NetworkMode mode, NetworkMode than);

struct NetworkRule {
  std::vector<std::string> methods;  // upper case; empty: all
  std::string host;                  // canonical, or "*." and a canonical one
  std::string path;                  // empty: all; else it begins with '/', and '*' is anything
  std::string range;                 // empty, or the private range that the host may lead to

  bool operator==(const NetworkRule&) const = default;
};
// A name as it stands in DNS, lower case, at least two labels, the last not a number: so that it
// can never be an address in any notation.
Status valid_host_name(std::string_view host);
// Not a preset. Refuses what could be misread: IP addresses, schemes, ports, spaces, control bytes.
Result<NetworkRule> parse_network_rule(std::string_view text);

inline constexpr std::string_view kPresets[] = {"@anthropic", "@apt",    "@git-origin",
                                                "@npm",       "@openai", "@pip"};
// A rule, also one for git over SSH (see git_rule.h), or a known preset.
Status valid_network_entry(std::string_view text);

// What a VM may reach unless its owner says otherwise: packages, and the repository that it is of.
std::vector<std::string> default_network_allow();

struct NetworkPolicy {
  NetworkMode mode = NetworkMode::kAllowlist;
  // From the files, after the default ones.
  std::vector<std::string> allow = default_network_allow();
  std::vector<std::string> deny;
  // From `agent-vm net allow` and `net deny`; no file takes them back.
  std::vector<std::string> owner_allow;
  std::vector<std::string> owner_deny;

  bool operator==(const NetworkPolicy&) const = default;
};

Status validate(const NetworkPolicy& policy);

}  // namespace agent_vm

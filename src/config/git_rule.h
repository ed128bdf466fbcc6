// Git over SSH, as far as a VM's policy allows it:
//
//   fetch ssh://git@git.example.org/team/app   to fetch from this repository
//   push ssh://git@git.example.org/team/*      to push as well; `*` stands for anything
//
// Of a refusing rule, `push` refuses to push, and `fetch` both. Without a rule nothing is allowed,
// whatever the mode. The user is git unless named, the port 22; a path means the same with and
// without its first slash and its ".git".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "config/network_policy.h"

namespace agent_vm {

// What stands in front of and behind the first space; parse_network_rule() knows no such rule.
bool is_git_rule(std::string_view text);
Status valid_git_rule(std::string_view text);

struct GitRequest {
  bool push = false;
  std::string user;
  std::string host;  // canonical
  std::uint16_t port = 22;
  std::string path;  // as git gave it

  // "fetch ssh://git@git.example.org/team/app": the rule that allows exactly this.
  std::string as_rule() const;
};
// Refuses what could be misread on its way: by ssh, by the shell at the other end, by a rule.
Status validate(const GitRequest& request);
// Of a "ssh://..." URL.
Result<GitRequest> parse_git_url(std::string_view url, bool push);

struct GitDecision {
  bool allowed = false;
  std::string rule;  // the text of the rule that decided, or the mode
  std::string why;
};
GitDecision decide(const NetworkPolicy& policy, const GitRequest& request);

}  // namespace agent_vm

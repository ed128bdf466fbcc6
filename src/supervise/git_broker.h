// Runs the owner's ssh for the guest's git. A process beside the supervisor, begun before that one
// enters its user namespace: ssh and its agent must see the owner himself, with his home and id.
//
// It reads nothing that the guest wrote. The supervisor has parsed and allowed what it is asked
// for; the guest's bytes go through ssh to the one program at the other end that git needs there.
#pragma once

#include "base/fd.h"
#include "base/result.h"
#include "config/git_rule.h"
#include "os/spawn.h"

namespace agent_vm {

struct GitBroker {
  Child process;
  // Messages. To it: {"id", "push", "user", "host", "port", "path", "version"} and the guest's
  // connection. From it: {"id", "status", "error"} when ssh has ended. It ends, and every ssh with
  // it, when this is closed.
  Fd channel;
};
Result<GitBroker> start_git_broker();

// Only keys that the owner's known_hosts has; nobody is asked; nothing is forwarded. `home`: the
// owner's.
std::vector<std::string> git_ssh_command(const GitRequest& request, const std::string& home);

}  // namespace agent_vm

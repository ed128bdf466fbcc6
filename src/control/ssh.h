// SSH into a VM, by the system's own client, and the diagnosis when it does not work (M2).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "config/vm_config.h"
#include "state/vm_directory.h"

namespace agent_vm {

// All that it takes to reach one VM's sshd and be sure that it is that one.
struct SshTarget {
  std::string address;  // numeric, on the host
  std::uint16_t port = 0;
  std::string private_key;  // path
  std::string known_hosts;  // path; holds the VM's host key under `alias`
  std::string alias;        // the VM's name
  // Path of the socket of a connection that is kept for as long as the VM runs: the key exchange is
  // done once, and each command costs milliseconds. Empty when the path would be too long for one.
  std::string kept_connection;
};
SshTarget ssh_target(const VmDirectory& vm, const VmConfig& config);

// ssh with all options, up to and including the destination; append the remote command. The user's
// own ssh configuration is not read, the agent and the environment are not forwarded (S26).
std::vector<std::string> ssh_argv(const SshTarget& target,
                                  const std::vector<std::string>& options = {});

// Options with which ssh uses the kept connection, or makes it when there is none. The ssh that
// makes it leaves a process behind, which ends with the connection: with the VM.
// `terminal`: "-t" or "-T".
std::vector<std::string> use_kept_connection(const SshTarget& target, const char* terminal);

struct SshCheck {
  bool authenticated = false;
  double milliseconds = 0;
  // When not: the first step that failed, "key file", "port", "banner", "host key",
  // "authentication" or "command", and what was seen.
  std::string failed_step;
  std::string detail;
};
// Always over a connection of its own. `keep`: it becomes the kept one.
SshCheck check_ssh(const SshTarget& target, const Deadline& deadline, bool keep = false);
// The same without a look at why it failed: `failed_step` is empty then. For a guest that may not
// be ready yet.
SshCheck try_ssh(const SshTarget& target, const Deadline& deadline, bool keep);

}  // namespace agent_vm

// Commands in the guest, through the system's SSH client.
#pragma once

#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "cli/output.h"
#include "control/ssh.h"
#include "state/vm_directory.h"

namespace agent_vm {

// kNotRunning, with the command that starts it, when the VM does not run.
Result<SshTarget> running_target(const VmDirectory& vm);

// What sh has to be told so that it runs exactly these arguments in /workspace, and so that its
// exit status is the program's own, 128 + n when signal n ended it. `mark`, a word, is in the
// command line of the leader of its process group.
std::string remote_command_line(const std::vector<std::string>& argv, const std::string& mark);

// Replaces this process by ssh with a terminal in the guest. Returns only on failure.
Status become_ssh(const SshTarget& target, const std::string& remote_command);

struct RemoteRun {
  std::vector<std::string> argv;
  Deadline deadline = Deadline::never();
  // Control bytes of the guest's output are escaped even when it does not go to a terminal.
  bool always_escape = false;
};
// Runs it with our stdin, stdout and stderr, without a terminal in the guest. Signals that we get
// are sent on to it. What goes to a terminal of ours has its control bytes escaped (S25). Returns
// the exit status: the program's own, or 255 after an explanation on stderr when SSH failed.
Result<int> run_remotely(Output& out, const SshTarget& target, const RemoteRun& command);

}  // namespace agent_vm

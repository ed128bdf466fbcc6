// One login for all who want to know whether SSH works.
#pragma once

#include "control/ssh.h"
#include "state/vm_directory.h"

namespace agent_vm {

// check_ssh(), for commands that may be many at once: a key exchange keeps a guest busy, and its
// sshd turns away whoever comes while too many are under way. So one command logs in, and all who
// asked before it began take its answer. Nobody gets an answer older than its question.
SshCheck shared_ssh_check(const VmDirectory& vm, const VmConfig& config, const Deadline& deadline);

}  // namespace agent_vm

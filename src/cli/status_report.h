// The status lines: printed by `status`, and at the end of `start`.
#pragma once

#include <optional>

#include "cli/context.h"
#include "control/ssh.h"

namespace agent_vm {

// Looks at everything, prints it, and returns the exit status: 0 all well, 3 not running, 4 running
// but not all well. `ssh`: a check that was just made.
Result<int> report_status(Context& context, const VmDirectory& vm,
                          const std::optional<SshCheck>& ssh = {});

}  // namespace agent_vm

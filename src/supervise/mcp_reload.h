// Other MCP servers for a running VM: no restart, and nothing that the others notice.
#pragma once

#include "base/deadline.h"
#include "config/vm_config.h"
#include "os/async.h"
#include "qmp/guest_agent.h"

namespace agent_vm {

// What the gateway of a VM that runs with `running` has to be told when its file says `now`: only
// what needs no restart.
VmConfig reloadable(const VmConfig& running, const VmConfig& now);

// Writes the gateway's configuration into the guest and has it read. The gateway refuses one that
// it cannot use, and goes on with the old: ask it what it has.
Task<Status> reload_mcp(GuestAgent& agent, VmConfig config, Deadline deadline);

}  // namespace agent_vm

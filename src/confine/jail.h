// Applies a Jail (plan/jail.h) to a child of the supervisor, which is inside the VM's user
// namespace.
#pragma once

#include "base/result.h"
#include "os/spawn.h"
#include "plan/jail.h"

namespace agent_vm {

// Fills the steps between fork and exec of `spec` so that the program starts inside `jail`.
// `gateway` is a descriptor of the gateway's network namespace, -1 when the jail does not use it.
// A control that the kernel refuses ends the child: nothing runs less confined than planned.
SpawnSpec confined(SpawnSpec spec, const Jail& jail, int gateway);

// How many open files a child may be planned to have (Jail::max_open_files): this process's hard
// limit, which root raises first, to as much as the share can use. Each file of the workspace that
// a guest knows is one. Needs to be done outside of a user namespace.
std::uint64_t allow_open_files();

}  // namespace agent_vm

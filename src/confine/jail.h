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

}  // namespace agent_vm

// What the programs that the workspace runs find in their environment.
#pragma once

#include "process/spawn.h"

namespace agent_vm::workspace {

// The service's own environment (PATH, HOME, the CA and proxy variables that the image sets)
// without what systemd tells the service alone: whoever holds the notify socket could pretend to be
// it.
process::Environment child_environment();

// The same, for helpers such as git and rg: no pager, no prompt, no colour, untranslated.
process::Environment helper_environment();

}  // namespace agent_vm::workspace

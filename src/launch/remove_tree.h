// Removing what a VM wrote: files in its workspace may belong to its subordinate ids.
#pragma once

#include <string>

#include "base/result.h"

namespace agent_vm {

// As remove_tree_at(), as the caller when that is enough, and otherwise from inside the VM's user
// namespace.
Status remove_vm_tree(int dir, const std::string& name);

}  // namespace agent_vm

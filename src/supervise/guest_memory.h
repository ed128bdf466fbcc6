// The guest's memory: a file in a tmpfs that only the supervisor's mount namespace has, and from
// there QEMU's jail. It takes up what the guest has touched, no limit of a /dev/shm applies, and
// the kernel frees it with the last of the two processes, however they end.
#pragma once

#include <cstdint>

#include "base/fd.h"
#include "base/result.h"
#include "state/vm_directory.h"

namespace agent_vm {

// Call once, inside the VM's user namespace. All zeros; QEMU may open it by the plan's path.
Result<Fd> make_guest_memory(const VmDirectory& vm, std::uint64_t bytes);

// All zeros again. Nobody may have it mapped.
Status clear_guest_memory(int memory, std::uint64_t bytes);

}  // namespace agent_vm

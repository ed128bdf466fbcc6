// Writing a stopped machine down: memory, devices, root file system.
#pragma once

#include <cstdint>

#include "supervise/machine.h"

namespace agent_vm {

// Where a running machine keeps what its devices' state does not hold.
struct MachineStorage {
  int memory;  // the guest's, as a file
  std::uint64_t memory_bytes;
  int root;  // the run's overlay over the root file system
};

// Empty files.
struct MachineFiles {
  int devices;
  int pages;
  int map;
  int root;
};

// The processors are stopped, before and after. Returns the bytes of memory that are not zero.
Task<Result<std::uint64_t>> write_machine(Machine& machine, MachineStorage storage,
                                          MachineFiles into, Deadline deadline);

}  // namespace agent_vm

// Which process a recorded pid meant. A pid alone is reused, and survives a reboot on paper; with
// the start time and the boot id it names one process for ever (F2, F3).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

struct ProcessIdentity {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // clock ticks since boot, field 22 of /proc/<pid>/stat
  std::string boot_id;           // /proc/sys/kernel/random/boot_id

  bool operator==(const ProcessIdentity&) const = default;
};

// Of a process that runs now; kNotFound when there is none.
Result<ProcessIdentity> identify(pid_t pid);

// A pidfd for exactly that process, or kNotFound when it has ended (or its pid is another's now).
Result<Fd> open_process(const ProcessIdentity& identity);

bool is_running(const ProcessIdentity& identity);

Result<std::string> boot_id();

}  // namespace agent_vm

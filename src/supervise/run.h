// The life of the supervisor's process.
#pragma once

#include <cstdint>
#include <string>

namespace agent_vm {

struct SupervisorOptions {
  std::string state_directory;
  std::string vm_name;
  int channel =
      -1;  // stream socket to the starting command; its end before the start is done aborts it
  int lock = -1;     // the VM's lock, held until run.json is written
  int secrets = -1;  // sealed memory, for the proxy
  std::uint64_t start_timeout_ms = 0;
  bool cold = false;  // boot, whatever templates there are
  bool debug = false;
};

// Returns the exit status: 0 when the VM started (and has ended since), 1 when it did not start.
int run_supervisor(const SupervisorOptions& options);

}  // namespace agent_vm

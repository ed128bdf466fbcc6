// More VMs of a running one: its processes, its disk and its workspace, each under an identity of
// its own. They are made as suspended VMs, which their first start lets go on.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "config/vm_config.h"
#include "state/source_repository.h"
#include "state/state_directory.h"

namespace agent_vm {

struct ForkRequest {
  std::vector<std::string> names;
  bool force = false;  // as for suspend_vm()
};

struct ForkOutcome {
  std::vector<VmConfig> forks;
  std::chrono::milliseconds stood{0};  // how long the source's processors did
};

// Call with the lock of `source` held. `source` runs on, whatever happens. All forks are complete
// before the first of them gets its name.
Result<ForkOutcome> fork_vm(const StateDirectory& state, const VmDirectory& source,
                            const ForkRequest& request, const Bounds& bounds);

}  // namespace agent_vm

// Start and stop as more than one verb does them: with progress on the terminal. The VM's lock is
// the caller's.
#pragma once

#include "cli/context.h"
#include "launch/lifecycle.h"

namespace agent_vm {

// Without KVM a guest boots 10 to 20 times slower than with it.
constexpr std::chrono::minutes kStartPatience{5};
// What a guest gets to shut down in, before it is made to.
constexpr std::chrono::seconds kGrace{30};
// The grace, and then QEMU's turn, the kernel's turn, and the teardown.
constexpr std::chrono::seconds kStopPatience{60};

// Prints the notes of the start (such as: no hardware isolation) on stderr.
Result<StartOutcome> start_with_progress(Context& context, const VmDirectory& vm,
                                         const DirectoryLock& lock, const Deadline& deadline,
                                         bool cold = false);
Result<StopOutcome> stop_with_progress(Context& context, const VmDirectory& vm, bool force,
                                       const Deadline& deadline);

// For an error of suspend or fork, which is refused while processes of the guest use /workspace.
Error with_way_out(Error error, const std::string& verb, const VmDirectory& vm);

}  // namespace agent_vm

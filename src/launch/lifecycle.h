// Start, stop and status of a VM, as any front end needs them. The functions that change something
// want the VM's lock to be held by the caller.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/deadline.h"
#include "base/result.h"
#include "control/ssh.h"
#include "launch/start_profile.h"
#include "os/lock.h"
#include "state/state_directory.h"

namespace agent_vm {

using LifecycleProgress = std::function<void(const std::string& step, const std::string& text)>;

// What is known of a VM's run from its records and its supervisor.
struct RunState {
  enum class Kind {
    kStopped,
    kStarting,
    kRunning,
    kPaused,
    kSuspending,
    kForking,
    kSuspended,
    kStopping,
    kCrashed,
    kUnresponsive
  };
  Kind kind = Kind::kStopped;
  std::string reason;                 // why it crashed, is paused, or does not respond
  std::vector<std::string> evidence;  // of a crash
  std::optional<RunRecord> record;    // of the run, when there is one
  nlohmann::json supervisor;          // the supervisor's status, when it answered
};
const char* to_string(RunState::Kind kind);  // "Stopped", "Starting", ...

// Truthful at the moment of the call: a supervisor that is gone is noticed (F1, F2, F3), one that
// hangs too (F16). `patience` bounds the question to the guest; without one it is not asked.
Result<RunState> query_run_state(const VmDirectory& vm,
                                 std::optional<std::chrono::milliseconds> patience);

struct StartOptions {
  bool debug = false;
  bool cold = false;  // boot, whatever templates there are
};
struct StartOutcome {
  bool already_running = false;
  std::vector<std::string> notes;
  SshCheck ssh;
  StartProfile profile;
};
// Returns when the guest has its identity, the MCP endpoint has answered and SSH has authenticated;
// on any failure, the deadline's included, the VM is stopped again and the error says which step
// failed.
// The supervisor holds the lock as well until its own record says that it is there: were this
// command killed before that, the next one would otherwise find no sign of it and start a second.
Result<StartOutcome> start_vm(const std::string& state_path, const VmDirectory& vm,
                              const DirectoryLock& lock, const StartOptions& options,
                              const Deadline& deadline, const LifecycleProgress& progress);

// Asks a guest that was booted where its boot's time went. Takes a second, after the start.
Status add_boot_profile(const VmDirectory& vm, StartProfile& profile, const Deadline& deadline);

struct StopOutcome {
  bool was_running = false;
  std::string how;                 // "guest", "qmp", "kill", "force"
  bool gave_up_suspended = false;  // it was suspended, and is no more
};
// `force`: kills the supervisor, and with it everything of the VM, without asking it. What a
// suspended VM had in memory is given up.
Result<StopOutcome> stop_vm(const VmDirectory& vm, std::chrono::milliseconds grace, bool force,
                            const Deadline& deadline);

// Saves a running VM on the disk and ends it; the next start goes on from there. `force`: even if
// processes of the guest lose files of the workspace that they have open. On an error it runs on.
Status suspend_vm(const VmDirectory& vm, bool force, const Deadline& deadline);

}  // namespace agent_vm

#include "cli/run_vm.h"

#include "base/text.h"
#include "cli/progress.h"

namespace agent_vm {

Result<StartOutcome> start_with_progress(Context& context, const VmDirectory& vm,
                                         const DirectoryLock& lock, const Deadline& deadline,
                                         bool cold) {
  const std::string state_path = TRY(context.state()).path();
  StartOutcome outcome;
  {
    ProgressLine progress(context.out);
    outcome = TRY(start_vm(
        state_path, vm, lock, {.debug = context.debug, .cold = cold}, deadline,
        [&](const std::string& step, const std::string& text) { progress.show(step, text); }));
  }
  for (const auto& note : outcome.notes) context.out.note("{}", escape_line(note));
  return outcome;
}

Result<StopOutcome> stop_with_progress(Context& context, const VmDirectory& vm, bool force,
                                       const Deadline& deadline) {
  StopOutcome outcome;
  const auto grace = std::min<std::chrono::milliseconds>(
      kGrace, deadline.is_never() ? kGrace : std::chrono::milliseconds(deadline.poll_ms() / 2));
  {
    ProgressLine progress(context.out);
    progress.show("stop", "the guest shuts down");
    outcome = TRY(stop_vm(vm, grace, force, deadline));
  }
  if (outcome.gave_up_suspended) {
    context.out.note(
        "VM '{}' was suspended: what it had in memory is given up, as if its power had failed; "
        "disk "
        "and workspace stay",
        vm.name());
  }
  return outcome;
}

Error with_way_out(Error error, const std::string& verb, const VmDirectory& vm) {
  if (error.message().find("/workspace open") == std::string::npos) return error;
  return std::move(error).with_hint(fmt::format(
      "end them, or: agent-vm {} --force {}   (they lose these files and folders; what is in the "
      "workspace stays)",
      verb, vm.name()));
}

}  // namespace agent_vm

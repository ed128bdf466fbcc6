#include "cli/exit_code.h"
#include "cli/run_vm.h"
#include "cli/verbs.h"

namespace agent_vm {
namespace {

struct Options {
  std::string vm;
  bool force = false;
};

const char* explain(const std::string& how) {
  if (how == "guest") return "the guest shut down";
  if (how == "qmp") return "the guest did not react to the power button, so QEMU was told to quit";
  if (how == "kill") return "neither the guest nor QEMU reacted, so QEMU was killed";
  if (how == "force") return "killed, as asked";
  return "it ended";
}

Result<int> stop(Context& context, const Options& options) {
  const VmDirectory vm = TRY(context.vm(options.vm));
  const Deadline deadline = TRY(context.deadline(kStopPatience));
  StopOutcome outcome;
  {
    // A hung supervisor may be hung under a command that holds the lock: force does not wait for
    // it.
    std::optional<DirectoryLock> lock;
    if (!options.force) lock = TRY(vm.lock(deadline));
    outcome = TRY(stop_with_progress(context, vm, options.force, deadline));
  }
  context.out.json({{"vm_name", vm.name()},
                    {"was_running", outcome.was_running},
                    {"how", outcome.how},
                    {"gave_up_suspended", outcome.gave_up_suspended}});
  if (outcome.was_running) {
    context.out.print("VM '{}' stopped: {}", vm.name(), explain(outcome.how));
  } else if (outcome.gave_up_suspended) {
    context.out.print("VM '{}' stopped: it is suspended no more", vm.name());
  } else {
    context.out.print("VM '{}' is not running", vm.name());
  }
  return kExitOk;
}

}  // namespace

void add_stop(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, "stop", "shut a VM down: the guest first, then QEMU, then by force",
               "  agent-vm stop\n"
               "  agent-vm stop --force my-branch     a VM that hangs");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_flag("--force", options->force, "kill it without asking it");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return stop(context, *options); });
}

}  // namespace agent_vm

#include "cli/run_vm.h"
#include "cli/status_report.h"
#include "cli/verbs.h"

namespace agent_vm {
namespace {

Result<int> restart(Context& context, const std::string& name) {
  const VmDirectory vm = TRY(context.vm(name));
  const Deadline deadline = TRY(context.deadline(kStopPatience + kStartPatience));
  StartOutcome outcome;
  {
    const DirectoryLock lock = TRY(vm.lock(deadline));
    TRY(stop_with_progress(context, vm, false, deadline));
    outcome = TRY(start_with_progress(context, vm, lock, deadline));
  }
  return report_start(context, vm, outcome);
}

}  // namespace

void add_restart(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, "restart", "stop a VM and start it again", "  agent-vm restart my-branch");
  auto vm = std::make_shared<std::string>();
  add_vm_argument(*verb, *vm);
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, vm] { return restart(context, *vm); });
}

}  // namespace agent_vm

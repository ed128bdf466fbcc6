#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/run_vm.h"
#include "cli/status_report.h"
#include "cli/verbs.h"
#include "launch/prepare.h"

namespace agent_vm {
namespace {

struct Options {
  std::string vm;
  bool dry_run = false;
  bool cold = false;
};

Result<int> dry_run(Context& context, const VmDirectory& vm, const Options& options) {
  const VmConfig config = TRY(vm.read_config());
  const PreparedStart prepared =
      TRY(prepare_start(vm, config, options.cold, TRY(context.deadline(kStartPatience))));
  const nlohmann::ordered_json plan = to_json(prepared.plan);
  context.out.json(plan);
  context.out.print("{}", plan.dump(2));
  return kExitOk;
}

Result<int> start(Context& context, const Options& options) {
  const VmDirectory vm = TRY(context.vm(options.vm));
  if (options.dry_run) return dry_run(context, vm, options);
  const Deadline deadline = TRY(context.deadline(kStartPatience));
  StartOutcome outcome;
  {
    const DirectoryLock lock = TRY(vm.lock(deadline));
    outcome = TRY(start_with_progress(context, vm, lock, deadline, options.cold));
  }
  if (outcome.already_running) context.out.note("VM '{}' is running already", vm.name());
  return report_status(context, vm, outcome.ssh);
}

}  // namespace

void add_start(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, "start", "start a VM and wait until SSH and the agent service answer",
               "  agent-vm start\n"
               "  agent-vm --timeout 60 start my-branch\n"
               "  agent-vm start --dry-run --json     the launch plan; starts nothing");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_flag("--dry-run", options->dry_run, "print the launch plan and start nothing");
  verb->add_flag("--cold", options->cold, "boot the guest instead of resuming a template");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return start(context, *options); });
}

}  // namespace agent_vm

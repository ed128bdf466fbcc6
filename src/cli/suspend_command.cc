// suspend and resume.
#include "cli/exit_code.h"
#include "cli/progress.h"
#include "cli/run_vm.h"
#include "cli/status_report.h"
#include "cli/verbs.h"
#include "launch/suspended.h"

namespace agent_vm {
namespace {

// A gigabyte of memory to write and to hash, on a slow disk, under emulation.
constexpr std::chrono::minutes kSuspendPatience{3};

struct Options {
  std::string vm;
  bool force = false;
};

Result<int> suspend(Context& context, const Options& options) {
  const VmDirectory vm = TRY(context.vm(options.vm));
  const Deadline deadline = TRY(context.deadline(kSuspendPatience));
  const DirectoryLock lock = TRY(vm.lock(deadline));
  {
    ProgressLine progress(context.out);
    progress.show("suspend", "saving the guest's memory");
    const Status done = suspend_vm(vm, options.force, deadline);
    if (!done) return tl::unexpected(with_way_out(done.error(), "suspend", vm));
  }
  context.out.json({{"vm_name", vm.name()}, {"suspended", true}});
  context.out.print("VM '{}' is suspended. It goes on with: agent-vm resume {}", vm.name(),
                    vm.name());
  return kExitOk;
}

Result<int> resume(Context& context, const std::string& name) {
  const VmDirectory vm = TRY(context.vm(name));
  const Deadline deadline = TRY(context.deadline(kStartPatience));
  StartOutcome outcome;
  {
    const DirectoryLock lock = TRY(vm.lock(deadline));
    const auto run = TRY(vm.read_run());
    const bool runs = run && !run->is_stale();
    if (!runs && !is_suspended(vm)) {
      auto error = fail(ErrorKind::kNotRunning, "VM '{}' is not suspended", vm.name());
      return tl::unexpected(
          std::move(error).value().with_hint(fmt::format("agent-vm start {}", vm.name())));
    }
    outcome = TRY(start_with_progress(context, vm, lock, deadline));
  }
  if (outcome.already_running) context.out.note("VM '{}' is running already", vm.name());
  return report_status(context, vm, outcome.ssh);
}

}  // namespace

void add_suspend(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "suspend", "save a running VM on the disk, and free its memory",
                            "  agent-vm suspend\n"
                            "  agent-vm suspend --force my-branch     whoever uses /workspace");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_flag("--force", options->force,
                 "even if processes of the guest have files in /workspace open, which they lose");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return suspend(context, *options); });
}

void add_resume(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "resume", "let a suspended VM go on where it was; so does start",
                            "  agent-vm resume my-branch");
  auto vm = std::make_shared<std::string>();
  add_vm_argument(*verb, *vm);
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, vm] { return resume(context, *vm); });
}

}  // namespace agent_vm

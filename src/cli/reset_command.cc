#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/mcp_npm.h"
#include "cli/run_vm.h"
#include "cli/status_report.h"
#include "cli/verbs.h"
#include "launch/prepare.h"

namespace agent_vm {
namespace {

struct Options {
  std::string vm;
  bool yes = false;
};

Result<int> reset(Context& context, const Options& options) {
  const VmDirectory vm = TRY(context.vm(options.vm));
  const Deadline deadline = TRY(context.deadline(kStopPatience + kStartPatience));
  const std::string question =
      fmt::format("Throw away the disk of VM '{}'? The workspace stays.", vm.name());
  if (!options.yes && context.out.interactive() && !context.out.confirm(question)) {
    context.out.note("nothing was changed");
    return kExitFailed;
  }
  const DirectoryLock lock = TRY(vm.lock(deadline));
  const StopOutcome stopped = TRY(stop_with_progress(context, vm, false, deadline));
  TRY(discard_disk(vm));
  for (const auto& command : npm_commands(TRY(vm.read_config()))) {
    context.out.note("An MCP server was installed on that disk. Again, when the VM runs: {}",
                     escape_line(command));
  }
  if (stopped.was_running) {
    const StartOutcome started = TRY(start_with_progress(context, vm, lock, deadline));
    return report_start(context, vm, started);
  }
  context.out.json({{"vm_name", vm.name()}, {"reset", true}});
  context.out.print("VM '{}' gets a new disk at its next start", vm.name());
  return kExitOk;
}

}  // namespace

void add_reset(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "reset", "a new disk for a VM; configuration and workspace stay",
                            "  agent-vm reset my-branch");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_flag("--yes,-y", options->yes, "do not ask");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return reset(context, *options); });
}

}  // namespace agent_vm

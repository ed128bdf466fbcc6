#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/remote.h"
#include "cli/verbs.h"

namespace agent_vm {
namespace {

struct Options {
  std::string vm;
  bool terminal = false;
};

Result<int> exec(Context& context, const Options& options) {
  if (context.command.empty()) {
    return tl::unexpected(
        Error(ErrorKind::kInvalidInput, "no command given")
            .with_hint("it stands behind --: agent-vm exec my-branch -- make test"));
  }
  const VmDirectory vm = TRY(context.vm(options.vm));
  const SshTarget target = TRY(running_target(vm));
  if (options.terminal) {
    TRY(become_ssh(target, "cd /workspace && exec " + shell_join(context.command)));
    return kExitOk;
  }
  return run_remotely(context.out, target,
                      {.argv = context.command, .deadline = TRY(context.deadline())});
}

}  // namespace

void add_exec(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(
      app, "exec", "run a command in a VM's workspace; its exit status is ours",
      "  agent-vm exec my-branch -- make test\n"
      "  agent-vm exec -- sh -c 'ls | wc -l'\n"
      "  agent-vm exec -t my-branch -- htop\n"
      "Exit status: the command's own; 128 + n when signal n ended it; 255 when SSH failed.");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_flag("-t,--tty", options->terminal, "with a terminal in the guest");
  on_run(*verb, context, [&context, options] { return exec(context, *options); });
}

}  // namespace agent_vm

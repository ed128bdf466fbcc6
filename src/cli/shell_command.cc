#include "cli/exit_code.h"
#include "cli/remote.h"
#include "cli/verbs.h"

namespace agent_vm {

void add_shell(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "shell", "a shell in a VM, in its workspace",
                            "  agent-vm shell\n"
                            "  agent-vm shell my-branch");
  auto name = std::make_shared<std::string>();
  add_vm_argument(*verb, *name);
  on_run(*verb, context, [&context, name]() -> Result<int> {
    const VmDirectory vm = TRY(context.vm(*name));
    const SshTarget target = TRY(running_target(vm));
    TRY(become_ssh(target, "cd /workspace; exec \"${SHELL:-/bin/sh}\" -l"));
    return kExitOk;
  });
}

}  // namespace agent_vm

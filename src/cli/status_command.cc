#include "cli/status_report.h"
#include "cli/verbs.h"

namespace agent_vm {

void add_status(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, "status", "what a VM does, as its guest and its ports really answer",
               "  agent-vm status\n"
               "  agent-vm status my-branch --json");
  auto vm = std::make_shared<std::string>();
  add_vm_argument(*verb, *vm);
  add_json_flag(*verb, context);
  on_run(*verb, context,
         [&context, vm]() -> Result<int> { return report_status(context, TRY(context.vm(*vm))); });
}

}  // namespace agent_vm

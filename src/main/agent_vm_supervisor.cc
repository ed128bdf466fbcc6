// agent-vm-supervisor: one running VM. Started by `agent-vm start`, which reads progress and
// outcome on an inherited socket and may leave after that; it then lives until the VM ends.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <string>

#include "base/log.h"
#include "supervise/run.h"

int main(int argc, char** argv) {
  using namespace agent_vm;
  CLI::App app("supervises one running VM; started by agent-vm");
  SupervisorOptions options;
  std::string log_level = "info";
  app.add_option("--state-dir", options.state_directory, "the state directory")->required();
  app.add_option("--vm", options.vm_name, "name of the VM")->required();
  app.add_option("--channel", options.channel, "descriptor of the starting command's socket")
      ->required();
  app.add_option("--lock", options.lock,
                 "descriptor of the VM's lock, held until the VM is on record")
      ->required();
  app.add_option("--secrets", options.secrets, "descriptor of the owner's secrets, for the proxy")
      ->required();
  app.add_option("--timeout-ms", options.start_timeout_ms, "for the whole start")->required();
  app.add_flag("--cold", options.cold, "boot, whatever templates there are");
  app.add_flag("--debug", options.debug, "log everything");
  CLI11_PARSE(app, argc, argv);
  return run_supervisor(options);
}

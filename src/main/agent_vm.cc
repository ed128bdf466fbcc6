// agent-vm: the command.
#include <string>
#include <vector>

#include "cli/cli.h"

int main(int argc, char** argv) {
  return agent_vm::run_cli(std::vector<std::string>(argv + 1, argv + argc), AGENT_VM_VERSION);
}

// Where the parts of agent-vm are, relative to the program that runs: the same in an installation
// and in the build tree.
#pragma once

#include <string>

#include "base/result.h"

namespace agent_vm {

struct InstallLayout {
  std::string supervisor;      // <prefix>/libexec/agent-vm/agent-vm-supervisor
  std::string relay;           // <prefix>/libexec/agent-vm/agent-vm-relay
  std::string guest_programs;  // <prefix>/libexec/agent-vm/guest
  std::string image_files;     // <prefix>/share/agent-vm/image

  static Result<InstallLayout> find();
};

}  // namespace agent_vm

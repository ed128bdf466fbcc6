// Where the parts of agent-vm are, relative to the program that runs: the same in an installation
// and in the build tree.
#pragma once

#include <string>

#include "base/result.h"

namespace agent_vm {

struct InstallLayout {
  std::string supervisor;      // <prefix>/libexec/agent-vm/agent-vm-supervisor
  std::string relay;           // <prefix>/libexec/agent-vm/agent-vm-relay
  std::string uplink;          // <prefix>/libexec/agent-vm/agent-vm-uplink
  std::string resolver;        // <prefix>/libexec/agent-vm/agent-vm-resolver
  std::string guest_programs;  // <prefix>/libexec/agent-vm/guest
  std::string image_files;     // <prefix>/share/agent-vm/image
  std::string proxy_files;     // <prefix>/share/agent-vm/proxy

  static Result<InstallLayout> find();
};

}  // namespace agent_vm

// Leaving a template behind: the booted guest, before it has an identity, is stopped for a moment
// and written down; then it goes on and becomes the VM that it was booted for.
#pragma once

#include <string>

#include "supervise/saved_machine.h"

namespace agent_vm {

struct TemplateSource {
  std::string image_directory;
  std::string key;
  MachineStorage storage;
};

// Success as well when somebody else is making the same template at this moment. On an error the
// machine runs as before, or has ended.
Task<Status> save_template(Machine& machine, TemplateSource source, Deadline deadline);

}  // namespace agent_vm

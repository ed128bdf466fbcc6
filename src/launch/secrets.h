// The owner's secrets on their way to a VM's proxy, and their placeholders on theirs to the guest.
#pragma once

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"
#include "state/vm_directory.h"

namespace agent_vm {

// What the guest is told: {"NAME": "placeholder"}. Of the same name the same at each start.
inline constexpr const char* kPlaceholders = "secrets.json";

// Reads the owner's configuration, fetches every value, and writes kPlaceholders. The result is
// sealed memory with a JSON list for the proxy, which inherits it: no value is in a file, an
// argument or an environment. A value that cannot be had is left out, and a note says why.
Result<Fd> gather_secrets(const VmDirectory& vm, const Deadline& deadline,
                          std::vector<std::string>& notes);

}  // namespace agent_vm

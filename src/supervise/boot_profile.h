// Where the time of a guest's boot went, as its kernel and its systemd tell it.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "qmp/guest_agent.h"

namespace agent_vm {

// {"kernel_ms", "userspace_ms": since the kernel's clock began, until /init and until systemd;
// "units": the slowest services, by their beginning: [{"name", "begin_ms", "ms"}]}.
Task<Result<nlohmann::json>> ask_boot_profile(GuestAgent& agent, Deadline deadline);

// Of what the question's script prints; the guest may print anything.
nlohmann::json parse_boot_profile(std::string_view text);

}  // namespace agent_vm

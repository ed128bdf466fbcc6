// What the guest says of itself, and what the kernel says of the host's processes.
#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>

#include "qmp/guest_agent.h"

namespace agent_vm {

// {"pid", "cpu_seconds", "rss_bytes", "pss_bytes"}; members are absent when they cannot be read.
nlohmann::json process_figures(pid_t pid);

// {"reachable": true, "service": {...}, "workspace": {...}} from the guest's systemd and git, or
// {"reachable": false, "error": "..."}. Every value has been checked for its type.
Task<nlohmann::json> ask_guest(GuestAgent& agent, Deadline deadline);

}  // namespace agent_vm

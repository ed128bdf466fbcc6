// Waiting for hardware that is plugged in at this moment.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"

namespace agent_vm {

// Calls `attempt` now, and again whenever the kernel tells of a device, until it returns true or an
// error; 20 s at most. `what` names what did not appear, in the error.
Status retry_at_events(const std::string& what, const std::function<Result<bool>()>& attempt);

}  // namespace agent_vm

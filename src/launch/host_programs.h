// Which QEMU and virtiofsd this machine has, and what they can do.
#pragma once

#include "base/deadline.h"
#include "base/result.h"
#include "plan/launch_plan.h"

namespace agent_vm {

// kMissing, with the command that installs it, when one is not there. `relay` stays empty.
Result<HostPrograms> find_host_programs(const Deadline& deadline);

// Its two halves, each of which fills in its own members.
Status find_qemu(HostPrograms& programs, const Deadline& deadline);
Status find_virtiofsd(HostPrograms& programs, const Deadline& deadline);

}  // namespace agent_vm

// QEMU's arguments, one builder per concern.
#pragma once

#include "plan/launch_plan.h"

namespace agent_vm {

PlannedChild plan_qemu(const PlanInputs& inputs, const std::string& mac_address);

}  // namespace agent_vm

// QEMU's command line and jail.
#pragma once

#include "plan/launch_plan.h"

namespace agent_vm {

enum class QemuStart {
  kBoot,    // the image's kernel, from its first instruction
  kResume,  // waits for a template's state
  kWake,    // waits for the state of a suspended VM
};

// The machine is the same either way, and for all VMs of one size: a template fits them all.
PlannedChild plan_qemu(const PlanInputs& inputs, QemuStart start);

}  // namespace agent_vm

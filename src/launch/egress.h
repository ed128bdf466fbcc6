// What a VM's way out needs of its records: the policy file that its proxy reads, and the CA.
#pragma once

#include "base/deadline.h"
#include "base/result.h"
#include "config/vm_config.h"
#include "launch/install_layout.h"
#include "plan/launch_plan.h"
#include "state/vm_directory.h"

namespace agent_vm {

// Paths only; nothing is looked at.
EgressInputs egress_inputs(const InstallLayout& layout, const VmDirectory& vm);

// kMissing, with the command that installs it, when this machine cannot run a proxy.
Status check_egress();

// Writes network/policy.json from the configuration, with what the presets stand for now, and
// packages.json, from which the identity step tells the guest's apt, npm and pip where to go. A
// proxy that runs sees the policy at its next request. Call with the VM's lock held.
Status write_network_records(const VmDirectory& vm, const VmConfig& config,
                             const Deadline& deadline);

// The private ranges that rules of the configuration open.
std::vector<std::string> opened_ranges(const NetworkPolicy& policy);

inline constexpr const char* kPackageSettings = "packages.json";
inline constexpr const char* kPolicyFolder = "network";
inline constexpr const char* kPolicyFile = "policy.json";

}  // namespace agent_vm

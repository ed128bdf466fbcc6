// The status lines: printed by `status`, and at the end of `start`.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "cli/context.h"
#include "launch/lifecycle.h"

namespace agent_vm {

// Looks at everything, prints it, and returns the exit status: 0 all well, 3 not running, 4 running
// but not all well. `ssh`: a check that was just made.
Result<int> report_status(Context& context, const VmDirectory& vm,
                          const std::optional<SshCheck>& ssh = {});

// The same after a start, of which everything was just confirmed: the guest is not asked again, and
// what only it knows (the workspace's branch, the service's pid) is left out, or null.
// `with_profile`: the JSON has the start's profile, too.
Result<int> report_start(Context& context, const VmDirectory& vm, const StartOutcome& outcome,
                         bool with_profile = false);

// The mode of the network, and what is amiss with the way out. `supervisor`: its answer to
// `status`.
std::string describe_network(const nlohmann::json& supervisor);

}  // namespace agent_vm

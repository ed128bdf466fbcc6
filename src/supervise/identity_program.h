// Running agent-vm-identity in the guest, in one of its modes, and reading what it reports.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "os/async.h"
#include "qmp/guest_agent.h"

namespace agent_vm {

// The steps that it reports, with their times; or the error that it reports, with its evidence.
// `input`: the identity document, or empty.
Task<Result<nlohmann::json>> run_identity_program(GuestAgent& agent,
                                                  std::vector<std::string> arguments,
                                                  std::string input, Deadline deadline);

}  // namespace agent_vm

// Questions to a VM's gateway, one at a time.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/deadline.h"
#include "base/result.h"
#include "state/vm_directory.h"

namespace agent_vm {

// What /health tells whoever has the token: "servers" and their states, and more.
Result<nlohmann::json> gateway_details(const VmDirectory& vm, const Deadline& deadline);

// A request of MCP 2026-07-28, which needs no session; `server` empty: the default one. The result,
// or the server's error as ours.
Result<nlohmann::json> gateway_request(const VmDirectory& vm, const std::string& server,
                                       const std::string& method, nlohmann::json params,
                                       const Deadline& deadline);

}  // namespace agent_vm

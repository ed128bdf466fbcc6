// What the identity step sends to the guest (guest/identity reads it).
#pragma once

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "config/vm_config.h"
#include "state/vm_directory.h"

namespace agent_vm {

// Reads the VM's keys and token from its directory; makes its machine id on the first call.
Result<nlohmann::json> make_identity_document(const VmDirectory& vm, const VmConfig& config,
                                              const std::string& mac_address);

// The gateway's configuration file, as agent-mcp reads it.
nlohmann::json make_mcp_config(const VmConfig& config);

// A name that the kernel and DNS take, out of a VM's name.
std::string hostname_for(const std::string& vm_name);

}  // namespace agent_vm

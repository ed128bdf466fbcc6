// The secrets of a VM, all made on the host: the owner's key into it, its own host key, and the
// token of its MCP endpoint.
#pragma once

#include <string>

#include "base/result.h"
#include "state/source_repository.h"

namespace agent_vm {

// Makes ssh/ with both ed25519 key pairs (600 and 644) and known_hosts, which names the VM's key by
// the VM's name (HostKeyAlias), and mcp_token. `path` is the name of `dir`.
Status make_keys(const std::string& vm_name, int dir, const std::string& path,
                 const Bounds& bounds);

}  // namespace agent_vm

// The gateway's network namespace: the far end of the guest's only network card.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

struct Gateway {
  Fd network_namespace;  // joined by the relay and the proxy with setns()
  Fd tap;                // the guest's card: QEMU gets this and nothing else of the network
  Fd uplink_tap;   // the other end of the only way out; nobody reads it while the network is off
  Fd name_socket;  // UDP port 53 of the gateway, for the resolver
  Fd filter;       // netlink, for read_drop_counts()
  Fd door;         // the proxy's TCP port, bound; listens while there is a way out
  Fd git_door;     // that of git over SSH, the same
};

// Makes the namespace with lo, tap0 (10.66.0.1/24), the interface of the uplink, and its packet
// filter. Call inside the VM's user namespace.
Result<Gateway> make_gateway();

// The packet filter, as nftables commands.
std::string gateway_rules();

}  // namespace agent_vm

// The gateway's network namespace: the far end of the guest's only network card.
#pragma once

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

struct Gateway {
  Fd network_namespace;  // joined by the relay (and later the proxy) with setns()
  Fd tap;  // the interface's descriptor: QEMU gets this and nothing else of the network
};

// Makes the namespace with lo, tap0 (10.66.0.1/24) and its packet filter: what arrives from the
// guest is dropped unless it answers a connection that the gateway made, and nothing is forwarded.
// Call inside the VM's user namespace.
Result<Gateway> make_gateway();

// The packet filter, as nftables commands.
const char* gateway_rules();

}  // namespace agent_vm

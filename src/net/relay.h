// Carries TCP connections from the host's loopback to the guest.
//
// A socket keeps the network namespace that it was made in. The listeners were made in the host's,
// the relay itself lives in the gateway's, so what it accepts comes from the host and what it
// connects to is the guest; it can start no connection to the host.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace agent_vm {

struct RelayRoute {
  int listener;         // a listening descriptor
  std::string address;  // of the guest, numeric IPv4
  std::uint16_t port;
};

// Runs until killed. Each connection has bounded buffers and back-pressure in both directions, and
// a half-closed direction stays half-closed. `activity`, when not -1, is a datagram socket that is
// sent the number of open connections, as decimal text, whenever it changes: whether a VM is idle.
Status run_relay(const std::vector<RelayRoute>& routes, int activity = -1);

}  // namespace agent_vm

// The uplink: carries what the gateway sends to the network that the host sees, by sockets of an
// unprivileged process (libslirp). It holds the other end of the gateway's uplink interface and
// nothing else; see uplink_filter.h for what it lets through.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "config/ip_range.h"

namespace agent_vm {

struct UplinkOptions {
  int tap = -1;                  // descriptor of the interface, without packet information
  std::vector<IpRange> allowed;  // private ranges that the owner has opened
};

// Runs until killed.
Status run_uplink(const UplinkOptions& options);

}  // namespace agent_vm

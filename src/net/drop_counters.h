// What the gateway's packet filter has dropped of the guest's packets, read from the kernel.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

// "tcp", "udp", "other", and "spoofed" under an address that is not the guest's: the counters of
// gateway_rules() without their "dropped_".
using DropCounts = std::map<std::string, std::uint64_t>;

// A netlink socket to the filter of the network namespace that it is made in; it keeps it.
Result<Fd> make_filter_socket();
// Packets so far. Asks the kernel, which answers at once. Call with CAP_NET_ADMIN over the
// namespace, as the supervisor has it.
Result<DropCounts> read_drop_counts(int filter_socket);

}  // namespace agent_vm

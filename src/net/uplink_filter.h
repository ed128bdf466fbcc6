// What may leave by the uplink, frame by frame: web connections to public addresses, and questions
// to the resolver. The proxy decides by names; this is the wall behind it, in a process of its own,
// for the day when the proxy has been taken over.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "config/ip_range.h"

namespace agent_vm {

struct UplinkFilter {
  std::vector<IpRange> refused;
  std::vector<IpRange> allowed;        // by the owner's rules; stronger than `refused`
  std::vector<std::uint32_t> of_host;  // this machine's own addresses, in host byte order
  std::uint32_t resolver = 0;          // the only peer of port 53

  // `frame` is Ethernet, from the gateway.
  bool may_leave(std::span<const std::uint8_t> frame) const;

 private:
  bool may_reach(std::uint32_t address) const;
};

}  // namespace agent_vm

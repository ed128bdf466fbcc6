// IPv4 address ranges, and which of them a guest may never be connected to.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace agent_vm {

struct IpRange {
  std::uint32_t first = 0;  // in host byte order
  std::uint32_t last = 0;

  bool contains(std::uint32_t address) const { return first <= address && address <= last; }
  bool operator==(const IpRange&) const = default;
};

// "10.0.0.0/8", "192.168.1.7". Bits set behind the prefix are an error: whoever writes 10.1.2.3/8
// has meant something else.
Result<IpRange> parse_ip_range(std::string_view text);

// What no name may lead to, unless an owner's rule names host and range: this machine, its
// networks, other people's private networks, metadata services, multicast. A list of our own and
// not a library's "is private": those refuse the documentation ranges (192.0.2.0/24,
// 198.51.100.0/24, 203.0.113.0/24) too, where a machine's package mirror may well be.
const std::vector<std::string>& refused_ranges();

}  // namespace agent_vm

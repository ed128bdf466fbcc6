#include "net/uplink_filter.h"

#include <algorithm>

namespace agent_vm {
namespace {

constexpr std::size_t kEthernetHeader = 14;
constexpr std::size_t kIpv4Header = 20;
constexpr unsigned kArp = 0x0806;
constexpr unsigned kIpv4 = 0x0800;
constexpr unsigned kTcp = 6;
constexpr unsigned kUdp = 17;

unsigned read16(std::span<const std::uint8_t> bytes, std::size_t at) {
  return static_cast<unsigned>(bytes[at]) << 8U | bytes[at + 1];
}

std::uint32_t read32(std::span<const std::uint8_t> bytes, std::size_t at) {
  return static_cast<std::uint32_t>(read16(bytes, at)) << 16U | read16(bytes, at + 2);
}

bool in_any(const std::vector<IpRange>& ranges, std::uint32_t address) {
  return std::ranges::any_of(ranges, [&](const IpRange& one) { return one.contains(address); });
}

}  // namespace

bool UplinkFilter::may_reach(std::uint32_t address) const {
  if (std::ranges::find(of_host, address) != of_host.end()) return false;
  return in_any(allowed, address) || !in_any(refused, address);
}

bool UplinkFilter::may_leave(std::span<const std::uint8_t> frame) const {
  if (frame.size() < kEthernetHeader) return false;
  const unsigned type = read16(frame, 12);
  if (type == kArp) return true;  // answered by the uplink itself
  if (type != kIpv4) return false;
  const auto packet = frame.subspan(kEthernetHeader);
  if (packet.size() < kIpv4Header || packet[0] >> 4U != 4) return false;
  const std::size_t header = (packet[0] & 0x0FU) * 4U;
  // A later fragment has no ports to look at. The gateway's kernel makes none: both ends of the
  // uplink have the same MTU.
  const bool fragment = (read16(packet, 6) & 0x3FFFU) != 0;
  if (header < kIpv4Header || packet.size() < header + 4 || fragment) return false;
  const unsigned protocol = packet[9];
  const std::uint32_t to = read32(packet, 16);
  const unsigned port = read16(packet, header + 2);
  if (to == resolver) return port == 53 && (protocol == kUdp || protocol == kTcp);
  return protocol == kTcp && (port == 80 || port == 443) && may_reach(to);
}

}  // namespace agent_vm

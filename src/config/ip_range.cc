#include "config/ip_range.h"

#include <arpa/inet.h>

#include "base/text.h"

namespace agent_vm {

Result<IpRange> parse_ip_range(std::string_view text) {
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorKind::kInvalidInput, "'{}' is not a range of IPv4 addresses: {}",
                escape_line(text), why);
  };
  const auto slash = text.find('/');
  in_addr address{};
  if (::inet_pton(AF_INET, std::string(text.substr(0, slash)).c_str(), &address) != 1) {
    return refuse("write an address, or a network such as 10.1.0.0/16");
  }
  const std::uint32_t first = ntohl(address.s_addr);
  if (slash == std::string_view::npos) return IpRange{first, first};
  const auto prefix = parse_unsigned(text.substr(slash + 1));
  if (!prefix || *prefix > 32) return refuse("the prefix is a number from 0 to 32");
  const std::uint32_t rest = *prefix == 0 ? ~0U : (1U << (32U - *prefix)) - 1U;
  if ((first & rest) != 0) return refuse("bits are set behind the prefix");
  return IpRange{first, first | rest};
}

const std::vector<std::string>& refused_ranges() {
  static const std::vector<std::string> ranges{
      "0.0.0.0/8",         // this host on this network
      "10.0.0.0/8",        // private, and the gateway's own
      "100.64.0.0/10",     // shared by carriers, and some clouds' metadata
      "127.0.0.0/8",       // loopback
      "168.63.129.16/32",  // a cloud's control service under a public address
      "169.254.0.0/16",    // link-local: metadata services
      "172.16.0.0/12",     // private
      "192.0.0.0/24",      // protocol assignments
      "192.88.99.0/24",    // 6to4 relays
      "192.168.0.0/16",    // private
      "198.18.0.0/15",     // benchmarks of network devices
      "224.0.0.0/4",       // multicast
      "240.0.0.0/4",       // reserved, and the broadcast address
  };
  return ranges;
}

}  // namespace agent_vm

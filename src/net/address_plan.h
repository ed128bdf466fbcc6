// Addresses inside a VM's gateway network. Every VM has a network namespace of its own, so all use
// the same ones, and none is ever visible outside.
#pragma once

#include <cstdint>
#include <string_view>

namespace agent_vm {

constexpr std::string_view kGatewayAddress = "10.66.0.1";
constexpr std::string_view kGuestAddress = "10.66.0.15";
constexpr int kGatewayPrefix = 24;
constexpr std::uint16_t kGuestSshPort = 22;
constexpr std::uint16_t kGuestMcpPort = 8000;
// Where the proxy listens on the gateway; ports 80 and 443 of any address lead there.
constexpr std::uint16_t kProxyPort = 8080;
// Where the guest's git asks for a repository behind SSH: git's own port.
constexpr std::uint16_t kGitPort = 9418;

// The gateway's other side: a network of two, the gateway and the uplink (prefix as above).
constexpr std::string_view kUplinkNetwork = "10.66.1.0";
constexpr std::string_view kUplinkAddress = "10.66.1.1";   // the gateway's
constexpr std::string_view kUplinkRouter = "10.66.1.2";    // the uplink's
constexpr std::string_view kUplinkResolver = "10.66.1.3";  // stands for the host's resolver
// As large as an IPv4 packet can be, less what libslirp wants: the uplink's cost is per packet.
constexpr int kUplinkMtu = 65520;

}  // namespace agent_vm

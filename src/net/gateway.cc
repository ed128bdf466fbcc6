#include "net/gateway.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <nftables/libnftables.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "net/address_plan.h"
#include "net/descriptor_passing.h"
#include "net/drop_counters.h"
#include "os/files.h"
#include "os/spawn.h"
#include "plan/id_map.h"

namespace agent_vm {
namespace {

constexpr const char* kTap = "tap0";     // to the guest
constexpr const char* kUplink = "tapu";  // to the uplink, and by it to the world

ifreq request_for(const char* interface) {
  ifreq request{};
  std::strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  return request;
}

Status bring_up(int socket, const char* interface) {
  ifreq request = request_for(interface);
  if (::ioctl(socket, SIOCGIFFLAGS, &request) != 0)
    return fail_errno(errno, "cannot examine {}", interface);
  request.ifr_flags |= IFF_UP;
  if (::ioctl(socket, SIOCSIFFLAGS, &request) != 0)
    return fail_errno(errno, "cannot bring {} up", interface);
  return {};
}

sockaddr_in socket_address(std::string_view text, std::uint16_t port = 0) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  ::inet_pton(AF_INET, std::string(text).c_str(), &address.sin_addr);
  return address;
}

Status set_address(int socket, const char* interface, std::string_view text) {
  ifreq request = request_for(interface);
  sockaddr_in address = socket_address(text);
  std::memcpy(&request.ifr_addr, &address, sizeof address);
  if (::ioctl(socket, SIOCSIFADDR, &request) != 0)
    return fail_errno(errno, "cannot set the address of {}", interface);
  address.sin_addr.s_addr = htonl(~0U << (32 - kGatewayPrefix));
  std::memcpy(&request.ifr_netmask, &address, sizeof address);
  if (::ioctl(socket, SIOCSIFNETMASK, &request) != 0)
    return fail_errno(errno, "cannot set the netmask of {}", interface);
  return {};
}

Status set_mtu(int socket, const char* interface, int mtu) {
  ifreq request = request_for(interface);
  request.ifr_mtu = mtu;
  if (::ioctl(socket, SIOCSIFMTU, &request) != 0)
    return fail_errno(errno, "cannot set the MTU of {}", interface);
  return {};
}

Status set_default_route(int socket, std::string_view router) {
  rtentry route{};
  const auto put = [](sockaddr& to, const sockaddr_in& from) {
    std::memcpy(&to, &from, sizeof to);
  };
  put(route.rt_dst, socket_address("0.0.0.0"));
  put(route.rt_genmask, socket_address("0.0.0.0"));
  put(route.rt_gateway, socket_address(router));
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  if (::ioctl(socket, SIOCADDRT, &route) != 0)
    return fail_errno(errno, "cannot set the route to the uplink");
  return {};
}

// Bound here, where port 53 may be; whoever answers needs no privilege and no network of its own.
Result<Fd> make_name_socket() {
  Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = socket_address(kGatewayAddress, 53);
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "cannot make the resolver's socket");
  return fd;
}

// Held by the supervisor, too: while a proxy starts, for the first time or again, its connections
// wait here instead of being refused.
Result<Fd> make_door(std::uint16_t port) {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = socket_address(kGatewayAddress, port);
  // So that it can listen again while connections of a program that has ended are still closing.
  const int yes = 1;
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "cannot make the gateway's port {}", port);
  return fd;
}

Result<Fd> open_tap(const char* name, short more_flags) {
  Fd tap(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!tap) {
    const int error = errno;
    auto failure = fail_errno(error, "cannot open /dev/net/tun");
    return tl::unexpected(
        std::move(failure)
            .value()
            .with_kind(ErrorKind::kMissing)
            .with_hint(error == EACCES ? "sudo chmod 0666 /dev/net/tun" : "sudo modprobe tun"));
  }
  ifreq request = request_for(name);
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | more_flags);
  if (::ioctl(tap.get(), TUNSETIFF, &request) != 0)
    return fail_errno(errno, "cannot make {}", name);
  return tap;
}

Status disable_ipv6() {
  // Absent when the kernel has no IPv6 at all: nothing to switch off then.
  for (const auto* interface : {"all", "default"}) {
    const Fd fd(::open(fmt::format("/proc/sys/net/ipv6/conf/{}/disable_ipv6", interface).c_str(),
                       O_WRONLY | O_CLOEXEC));
    if (fd && ::write(fd.get(), "1", 1) != 1) return fail_errno(errno, "cannot disable IPv6");
  }
  return {};
}

Status apply_rules() {
  const std::unique_ptr<nft_ctx, void (*)(nft_ctx*)> context(nft_ctx_new(NFT_CTX_DEFAULT),
                                                             nft_ctx_free);
  if (!context) return fail("cannot prepare the packet filter");
  nft_ctx_buffer_error(context.get());
  if (nft_run_cmd_from_buffer(context.get(), gateway_rules().c_str()) != 0) {
    return fail(ErrorKind::kMissing, "cannot load the packet filter: {}",
                nft_ctx_get_error_buffer(context.get()));
  }
  return {};
}

Result<Gateway> build() {
  // /proc/sys/net shows the namespace of whoever opens it, so this works without a mount of our
  // own.
  if (::unshare(CLONE_NEWNET) != 0)
    return fail_errno(errno, "cannot make the gateway's network namespace");
  TRY(disable_ipv6());
  Gateway gateway;
  // The header lets guest and gateway leave checksums and segmentation undone: the packets never
  // touch a wire.
  gateway.tap = TRY(open_tap(kTap, IFF_VNET_HDR));
  gateway.uplink_tap = TRY(open_tap(kUplink, 0));
  // Filter first: no moment without it.
  TRY(apply_rules());
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "cannot make a socket");
  TRY(set_address(socket.get(), kTap, kGatewayAddress));
  TRY(set_address(socket.get(), kUplink, kUplinkAddress));
  TRY(set_mtu(socket.get(), kUplink, kUplinkMtu));
  TRY(bring_up(socket.get(), "lo"));
  TRY(bring_up(socket.get(), kTap));
  TRY(bring_up(socket.get(), kUplink));
  TRY(set_default_route(socket.get(), kUplinkRouter));
  gateway.name_socket = TRY(make_name_socket());
  gateway.door = TRY(make_door(kProxyPort));
  gateway.git_door = TRY(make_door(kGitPort));
  gateway.filter = TRY(make_filter_socket());
  gateway.network_namespace = Fd(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!gateway.network_namespace)
    return fail_errno(errno, "cannot open the gateway's network namespace");
  return gateway;
}

}  // namespace

std::string gateway_rules() {
  // In both directions only what is named. The guest reaches the proxy, by the two ports that are
  // redirected to it, and the resolver; the uplink takes only what the proxy sends, whoever else
  // may live here. Nothing is forwarded, so there is no other way. What leads nowhere is counted
  // and refused on its arrival: the kernel's own refusal to forward comes before `forward`, says
  // nothing and lets the guest's programs wait. A guest's packets under another address than its
  // own would be answered by way of the uplink, and are not heard.
  return fmt::format(
      R"(
add table inet agentvm
add counter inet agentvm dropped_spoofed
add counter inet agentvm dropped_tcp
add counter inet agentvm dropped_udp
add counter inet agentvm dropped_other
add chain inet agentvm prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
add rule inet agentvm prerouting iifname "tap0" tcp dport {{ 80, 443 }} redirect to :{proxy_port}
add chain inet agentvm nowhere
add rule inet agentvm nowhere meta l4proto tcp counter name "dropped_tcp" reject with tcp reset
add rule inet agentvm nowhere meta l4proto udp counter name "dropped_udp" reject
add rule inet agentvm nowhere counter name "dropped_other" drop
add chain inet agentvm arrival {{ type filter hook prerouting priority dstnat + 10; policy accept; }}
add rule inet agentvm arrival iifname "tap0" ip saddr != {guest} counter name "dropped_spoofed" drop
add rule inet agentvm arrival iifname "tap0" ip daddr != {gateway} goto nowhere
add chain inet agentvm input {{ type filter hook input priority filter; policy drop; }}
add rule inet agentvm input iifname "lo" accept
add rule inet agentvm input iifname "tap0" ct state established,related accept
add rule inet agentvm input iifname "tap0" ip daddr {gateway} udp dport 53 accept
add rule inet agentvm input iifname "tap0" ct status dnat tcp dport {proxy_port} accept
add rule inet agentvm input iifname "tap0" ip daddr {gateway} tcp dport {git_port} accept
add rule inet agentvm input iifname "tap0" goto nowhere
add rule inet agentvm input iifname "tapu" ct state established accept
add chain inet agentvm forward {{ type filter hook forward priority filter; policy drop; }}
add chain inet agentvm output {{ type filter hook output priority filter; policy drop; }}
add rule inet agentvm output oifname "lo" accept
add rule inet agentvm output oifname "tap0" ct state established,related accept
add rule inet agentvm output oifname "tap0" meta skuid {relay} tcp dport {{ {ssh}, {mcp} }} accept
add rule inet agentvm output oifname "tapu" meta skuid {proxy} accept
add rule inet agentvm output oifname "tapu" ct state established accept
add rule inet agentvm output counter drop
)",
      fmt::arg("proxy_port", kProxyPort), fmt::arg("git_port", kGitPort),
      fmt::arg("guest", kGuestAddress), fmt::arg("gateway", kGatewayAddress),
      fmt::arg("relay", kRelayId), fmt::arg("proxy", kProxyId), fmt::arg("ssh", kGuestSshPort),
      fmt::arg("mcp", kGuestMcpPort));
}

Result<Gateway> make_gateway() {
  // A process cannot return from a network namespace that it does not own, and the supervisor's is
  // the host's. So a child makes the new one and hands the descriptors back.
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    return fail_errno(errno, "cannot make a socket pair");
  }
  const Fd ours(pair[0]);
  Fd theirs(pair[1]);
  SpawnSpec builder;
  builder.argv = {"gateway-builder"};
  builder.in_child = [channel = theirs.get()]() -> Status {
    const Gateway gateway = TRY(build());
    return send_descriptors(channel, "gateway",
                            {gateway.network_namespace.get(), gateway.tap.get(),
                             gateway.uplink_tap.get(), gateway.name_socket.get(),
                             gateway.door.get(), gateway.filter.get(), gateway.git_door.get()});
  };
  builder.main_instead_of_exec = [] { return 0; };
  Child child = TRY(spawn(builder));
  theirs.reset();
  auto message = TRY(receive_descriptors(ours.get(), 7));
  static_cast<void>(TRY(child.wait()));
  Gateway gateway;
  gateway.network_namespace = std::move(message[0]);
  gateway.tap = std::move(message[1]);
  gateway.uplink_tap = std::move(message[2]);
  gateway.name_socket = std::move(message[3]);
  gateway.door = std::move(message[4]);
  gateway.filter = std::move(message[5]);
  gateway.git_door = std::move(message[6]);
  return gateway;
}

}  // namespace agent_vm

#include "net/gateway.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
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
#include "os/files.h"
#include "os/spawn.h"

namespace agent_vm {
namespace {

constexpr const char* kTap = "tap0";

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

Status set_address(int socket, const char* interface) {
  ifreq request = request_for(interface);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  ::inet_pton(AF_INET, std::string(kGatewayAddress).c_str(), &address.sin_addr);
  std::memcpy(&request.ifr_addr, &address, sizeof address);
  if (::ioctl(socket, SIOCSIFADDR, &request) != 0)
    return fail_errno(errno, "cannot set the address of {}", interface);
  address.sin_addr.s_addr = htonl(~0U << (32 - kGatewayPrefix));
  std::memcpy(&request.ifr_netmask, &address, sizeof address);
  if (::ioctl(socket, SIOCSIFNETMASK, &request) != 0)
    return fail_errno(errno, "cannot set the netmask of {}", interface);
  return {};
}

Result<Fd> open_tap() {
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
  ifreq request = request_for(kTap);
  // The header lets guest and gateway leave checksums and segmentation undone: the packets never
  // touch a wire.
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(tap.get(), TUNSETIFF, &request) != 0)
    return fail_errno(errno, "cannot make {}", kTap);
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
  if (nft_run_cmd_from_buffer(context.get(), gateway_rules()) != 0) {
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
  gateway.tap = TRY(open_tap());
  // Filter first: no moment without it.
  TRY(apply_rules());
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "cannot make a socket");
  TRY(set_address(socket.get(), kTap));
  TRY(bring_up(socket.get(), kTap));
  TRY(bring_up(socket.get(), "lo"));
  gateway.network_namespace = Fd(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!gateway.network_namespace)
    return fail_errno(errno, "cannot open the gateway's network namespace");
  return gateway;
}

}  // namespace

const char* gateway_rules() {
  // No output chain: only the relay (and the proxy) live here, and what they may reach is decided
  // by what the namespace is connected to. Accounting of drops is by the counters.
  return R"(
add table inet agentvm
add chain inet agentvm input { type filter hook input priority filter; policy drop; }
add rule inet agentvm input iifname "lo" accept
add rule inet agentvm input iifname "tap0" ct state established,related accept
add rule inet agentvm input iifname "tap0" counter drop
add chain inet agentvm forward { type filter hook forward priority filter; policy drop; }
add rule inet agentvm forward counter drop
)";
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
                            {gateway.network_namespace.get(), gateway.tap.get()});
  };
  builder.main_instead_of_exec = [] { return 0; };
  Child child = TRY(spawn(builder));
  theirs.reset();
  auto message = TRY(receive_descriptors(ours.get(), 2));
  static_cast<void>(TRY(child.wait()));
  Gateway gateway;
  gateway.network_namespace = std::move(message[0]);
  gateway.tap = std::move(message[1]);
  return gateway;
}

}  // namespace agent_vm

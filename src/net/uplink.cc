#include "net/uplink.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>

#include "base/fd.h"
#include "base/log.h"
#include "net/address_plan.h"
#include "net/uplink_filter.h"

namespace agent_vm {
namespace {

// Frames handled before the sockets get their turn again.
constexpr int kFramesAtOnce = 64;

in_addr address_of(std::string_view text) {
  in_addr address{};
  ::inet_pton(AF_INET, std::string(text).c_str(), &address);
  return address;
}

// Addresses of the network namespace that this process was started in: the host's.
std::vector<std::uint32_t> own_addresses() {
  std::vector<std::uint32_t> found;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return found;
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
    found.push_back(ntohl(reinterpret_cast<sockaddr_in*>(one->ifa_addr)->sin_addr.s_addr));
  }
  ::freeifaddrs(list);
  return found;
}

// Becomes readable when the host gets or loses an address.
Result<Fd> watch_addresses() {
  Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_IPV4_IFADDR;
  if (!fd || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, "cannot watch the host's addresses");
  }
  return fd;
}

class Uplink {
 public:
  explicit Uplink(const UplinkOptions& options) : tap_(options.tap) {
    filter_.allowed = options.allowed;
    filter_.resolver = ntohl(address_of(kUplinkResolver).s_addr);
  }

  Status run() {
    for (const auto& range : refused_ranges()) {
      filter_.refused.push_back(TRY(parse_ip_range(range)));
    }
    if (::fcntl(tap_, F_SETFL, O_NONBLOCK) != 0) return fail_errno(errno, "cannot use the tap");
    addresses_ = TRY(watch_addresses());
    filter_.of_host = own_addresses();
    start_slirp();
    if (!slirp_) return fail("cannot start the network stack");
    while (true) TRY(turn());
  }

 private:
  void start_slirp() {
    // No timers: libslirp has one, for IPv6's router advertisements, and there is no IPv6.
    callbacks_.send_packet = [](const void* frame, std::size_t size, void* self) {
      // A full queue drops; TCP sends it again.
      return ::write(static_cast<Uplink*>(self)->tap_, frame, size);
    };
    callbacks_.guest_error = [](const char* text, void*) { log::warn("{}", text); };
    callbacks_.clock_get_ns = [](void*) -> std::int64_t {
      return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
    };
    callbacks_.register_poll_fd = [](int, void*) {};
    callbacks_.unregister_poll_fd = [](int, void*) {};
    callbacks_.notify = [](void*) {};

    SlirpConfig config{};
    config.version = 4;
    config.in_enabled = true;
    config.vnetwork = address_of(kUplinkNetwork);
    config.vnetmask.s_addr = htonl(~0U << (32U - kGatewayPrefix));
    config.vhost = address_of(kUplinkRouter);
    config.vnameserver = address_of(kUplinkResolver);
    config.vdhcp_start = address_of(kUplinkAddress);
    config.if_mtu = config.if_mru = kUplinkMtu;
    config.disable_host_loopback = true;
    config.disable_dhcp = true;
    slirp_.reset(slirp_new(&config, &callbacks_, this));
  }

  Status turn() {
    polls_ = {{tap_, POLLIN, 0}, {addresses_.get(), POLLIN, 0}};
    std::uint32_t timeout = 60'000;  // libslirp makes it shorter when it has something to do
    slirp_pollfds_fill(slirp_.get(), &timeout, add_poll, this);
    const int ready = ::poll(polls_.data(), polls_.size(), static_cast<int>(timeout));
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for events");
    slirp_pollfds_poll(slirp_.get(), ready < 0 ? 1 : 0, get_events, this);
    if (ready <= 0) return {};
    if (polls_[1].revents != 0) refresh_addresses();
    return polls_[0].revents != 0 ? take_frames() : Status();
  }

  Status take_frames() {
    for (int i = 0; i < kFramesAtOnce; ++i) {
      const ssize_t size = ::read(tap_, frame_.data(), frame_.size());
      if (size < 0 && (errno == EAGAIN || errno == EINTR)) return {};
      if (size <= 0) return fail_errno(errno, "cannot read from the uplink's interface");
      const std::span<const std::uint8_t> frame(frame_.data(), static_cast<std::size_t>(size));
      if (filter_.may_leave(frame)) {
        slirp_input(slirp_.get(), frame.data(), static_cast<int>(size));
      }
    }
    return {};
  }

  void refresh_addresses() {
    std::array<char, 8192> event{};
    while (::recv(addresses_.get(), event.data(), event.size(), 0) > 0) {
    }
    filter_.of_host = own_addresses();
  }

  static int add_poll(int fd, int events, void* opaque) {
    auto& polls = static_cast<Uplink*>(opaque)->polls_;
    short wanted = 0;
    if ((events & SLIRP_POLL_IN) != 0) wanted |= POLLIN;
    if ((events & SLIRP_POLL_OUT) != 0) wanted |= POLLOUT;
    if ((events & SLIRP_POLL_PRI) != 0) wanted |= POLLPRI;
    polls.push_back({fd, wanted, 0});
    return static_cast<int>(polls.size()) - 1;
  }

  static int get_events(int index, void* opaque) {
    const short seen =
        static_cast<Uplink*>(opaque)->polls_[static_cast<std::size_t>(index)].revents;
    return ((seen & POLLIN) != 0 ? SLIRP_POLL_IN : 0) |
           ((seen & POLLOUT) != 0 ? SLIRP_POLL_OUT : 0) |
           ((seen & POLLPRI) != 0 ? SLIRP_POLL_PRI : 0) |
           ((seen & POLLERR) != 0 ? SLIRP_POLL_ERR : 0) |
           ((seen & POLLHUP) != 0 ? SLIRP_POLL_HUP : 0);
  }

  int tap_;
  UplinkFilter filter_;
  Fd addresses_;
  SlirpCb callbacks_{};
  std::unique_ptr<Slirp, void (*)(Slirp*)> slirp_{nullptr, slirp_cleanup};
  std::vector<pollfd> polls_;
  std::array<std::uint8_t, kUplinkMtu + 14> frame_{};
};

}  // namespace

Status run_uplink(const UplinkOptions& options) {
  const auto uplink = std::make_unique<Uplink>(options);
  return uplink->run();
}

}  // namespace agent_vm

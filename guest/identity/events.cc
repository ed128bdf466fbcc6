#include "identity/events.h"

#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "base/deadline.h"
#include "base/fd.h"

namespace agent_vm {

Status retry_at_events(const std::string& what, const std::function<Result<bool>()>& attempt) {
  // Subscribe before the first try: an event between the two is then not lost.
  const Fd events(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = 1;
  if (!events || ::bind(events.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "cannot listen to the kernel's events");
  const Deadline deadline = Deadline::in(std::chrono::seconds(20));
  while (!TRY(attempt())) {
    pollfd ready{events.get(), POLLIN, 0};
    if (::poll(&ready, 1, deadline.poll_ms()) == 0) return fail("{} did not appear", what);
    std::array<char, 8192> event{};
    while (::recv(events.get(), event.data(), event.size(), MSG_DONTWAIT) > 0) {
    }
  }
  return {};
}

}  // namespace agent_vm

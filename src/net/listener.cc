#include "net/listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"

namespace agent_vm {

Result<Fd> listen_tcp(const std::string& address, std::uint16_t port) {
  sockaddr_storage storage{};
  socklen_t size = 0;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
  if (::inet_pton(AF_INET, address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    size = sizeof *v4;
  } else if (::inet_pton(AF_INET6, address.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    size = sizeof *v6;
  } else {
    return fail(ErrorKind::kInvalidInput, "'{}' is not a numeric address", escape_line(address));
  }
  Fd fd(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "cannot make a socket");
  // Lets a restart bind while connections of the last run are in TIME_WAIT; it does not let two
  // listeners share a port.
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), size) != 0 ||
      ::listen(fd.get(), 128) != 0) {
    const int error = errno;
    auto failure = fail_errno(error, "cannot listen on {} port {}", address, port);
    if (error == EADDRINUSE) {
      return tl::unexpected(std::move(failure).value().with_hint(
          "another program has this port; choose another with: agent-vm update --port PORT "
          "--ssh-port PORT"));
    }
    return failure;
  }
  return fd;
}

}  // namespace agent_vm

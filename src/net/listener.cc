#include "net/listener.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "os/socket_address.h"

namespace agent_vm {

Result<Fd> listen_tcp(const std::string& address, std::uint16_t port) {
  const SocketAddress socket = TRY(tcp_address(address, port));
  Fd fd(::socket(socket.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "cannot make a socket");
  // Lets a restart bind while connections of the last run are in TIME_WAIT; it does not let two
  // listeners share a port.
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), socket.raw(), socket.size) != 0 || ::listen(fd.get(), 128) != 0) {
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

Result<Fd> listen_unix(int directory, const std::string& name) {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "cannot make a socket");
  static_cast<void>(::unlinkat(directory, name.c_str(), 0));
  const SocketAddress address = unix_address(directory, name);
  const mode_t old_mask = ::umask(0177);
  const int bound = ::bind(fd.get(), address.raw(), address.size);
  const int error = errno;
  ::umask(old_mask);
  if (bound != 0) return fail_errno(error, "cannot make the socket {}", name);
  if (::listen(fd.get(), 128) != 0) return fail_errno(errno, "cannot listen on {}", name);
  return fd;
}

}  // namespace agent_vm

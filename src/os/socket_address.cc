#include "os/socket_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>

#include "base/text.h"
#include "os/files.h"

namespace agent_vm {

Result<SocketAddress> tcp_address(const std::string& address, std::uint16_t port) {
  SocketAddress socket;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&socket.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&socket.storage);
  if (::inet_pton(AF_INET, address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    socket.size = sizeof *v4;
  } else if (::inet_pton(AF_INET6, address.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    socket.size = sizeof *v6;
  } else {
    return fail(ErrorKind::kInvalidInput, "'{}' is not a numeric address", escape_line(address));
  }
  return socket;
}

SocketAddress unix_address(int directory, std::string_view name) {
  SocketAddress socket;
  auto* address = reinterpret_cast<sockaddr_un*>(&socket.storage);
  address->sun_family = AF_UNIX;
  // Through /proc/self/fd it is short, and the zero behind it is there already.
  const std::string path = proc_fd_path(directory, name);
  std::copy_n(path.begin(), std::min(path.size(), sizeof address->sun_path - 1), address->sun_path);
  socket.size = sizeof *address;
  return socket;
}

}  // namespace agent_vm

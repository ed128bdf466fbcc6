#include "net/tcp_counts.h"

// Not <netinet/tcp.h>, whose tcp_info ends before these counts.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

namespace agent_vm {

Result<TcpCounts> tcp_counts(int socket) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
    return fail_errno(errno, "cannot count what a connection carried");
  return TcpCounts{info.tcpi_bytes_received, info.tcpi_bytes_acked};
}

}  // namespace agent_vm

#include "supervise/share.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "os/socket_address.h"

namespace agent_vm {

Result<ShareSocket> make_share_socket(int vm_directory) {
  constexpr const char* kName = "virtiofs.sock";
  static_cast<void>(::unlinkat(vm_directory, kName, 0));
  const SocketAddress address = unix_address(vm_directory, kName);
  ShareSocket share;
  share.listener = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  share.connected = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const bool made = share.listener && share.connected &&
                    ::bind(share.listener.get(), address.raw(), address.size) == 0 &&
                    ::listen(share.listener.get(), 1) == 0 &&
                    ::connect(share.connected.get(), address.raw(), address.size) == 0;
  const int error = errno;
  static_cast<void>(::unlinkat(vm_directory, kName, 0));
  if (!made) return fail_errno(error, "cannot make the share's socket");
  return share;
}

}  // namespace agent_vm

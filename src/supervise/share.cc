#include "supervise/share.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "os/files.h"

namespace agent_vm {

Result<ShareSocket> make_share_socket(int vm_directory) {
  constexpr const char* kName = "virtiofs.sock";
  static_cast<void>(::unlinkat(vm_directory, kName, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = proc_fd_path(vm_directory, kName);
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  ShareSocket share;
  share.listener = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  share.connected = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const bool made =
      share.listener && share.connected &&
      ::bind(share.listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      ::listen(share.listener.get(), 1) == 0 &&
      ::connect(share.connected.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  const int error = errno;
  static_cast<void>(::unlinkat(vm_directory, kName, 0));
  if (!made) return fail_errno(error, "cannot make the share's socket");
  return share;
}

}  // namespace agent_vm

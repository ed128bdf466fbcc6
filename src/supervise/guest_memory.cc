#include "supervise/guest_memory.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>

#include "launch/prepare.h"
#include "os/files.h"
#include "plan/id_map.h"

namespace agent_vm {

Result<Fd> make_guest_memory(const VmDirectory& vm, std::uint64_t bytes) {
  TRY(make_directory_at(vm.fd(), kMemoryFolder, 0700));
  // By path: the directory's descriptor is of the mount namespace that we were in before.
  const std::string target = fmt::format("{}/{}", vm.path(), kMemoryFolder);
  // A little more than the file: tmpfs counts whole pages, and must never be what ends a guest.
  const std::string options = fmt::format("mode=0700,nr_inodes=8,size={}", bytes + (1U << 20U));
  if (::mount("tmpfs", target.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              options.c_str()) != 0) {
    return fail_errno(errno, "cannot mount a tmpfs for the guest's memory");
  }
  const Fd mounted = TRY(open_directory(target));
  Fd memory = TRY(open_beneath(mounted.get(), kMemoryFile, O_RDWR | O_CREAT | O_EXCL, 0600));
  TRY(clear_guest_memory(memory.get(), bytes));
  if (::fchown(memory.get(), kQemuId, kQemuId) != 0)
    return fail_errno(errno, "cannot give the guest's memory to QEMU");
  return memory;
}

Status clear_guest_memory(int memory, std::uint64_t bytes) {
  if (::ftruncate(memory, 0) != 0 || ::ftruncate(memory, static_cast<off_t>(bytes)) != 0)
    return fail_errno(errno, "cannot make a memory of {} bytes", bytes);
  return {};
}

}  // namespace agent_vm

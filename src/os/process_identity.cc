#include "os/process_identity.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/text.h"
#include "os/files.h"

namespace agent_vm {

Result<std::string> boot_id() {
  return std::string(trim(TRY(read_file("/proc/sys/kernel/random/boot_id", 128))));
}

Result<ProcessIdentity> identify(pid_t pid) {
  const auto stat = read_file(fmt::format("/proc/{}/stat", pid), 4096);
  if (!stat) return fail(ErrorKind::kNotFound, "there is no process {}", pid);
  // The second field is the name in parentheses and may contain anything, so count from the last
  // ')'.
  const auto name_end = stat->rfind(')');
  if (name_end == std::string::npos) return fail("cannot understand /proc/{}/stat", pid);
  const auto fields = split(trim(std::string_view(*stat).substr(name_end + 1)), ' ');
  constexpr std::size_t kState = 0;
  constexpr std::size_t kStartTime = 19;
  if (fields.size() <= kStartTime) return fail("cannot understand /proc/{}/stat", pid);
  if (fields[kState] == "Z" || fields[kState] == "X") {
    return fail(ErrorKind::kNotFound, "process {} has ended", pid);
  }
  const auto start = parse_unsigned(fields[kStartTime]);
  if (!start) return fail("cannot understand /proc/{}/stat", pid);
  return ProcessIdentity{pid, *start, TRY(boot_id())};
}

Result<Fd> open_process(const ProcessIdentity& identity) {
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, identity.pid, 0)));
  if (!pidfd) return fail(ErrorKind::kNotFound, "there is no process {}", identity.pid);
  // Only now is the pid pinned; what it was before does not matter.
  const auto now = identify(identity.pid);
  if (!now || *now != identity) {
    return fail(ErrorKind::kNotFound, "process {} is not the one that was recorded", identity.pid);
  }
  return pidfd;
}

bool is_running(const ProcessIdentity& identity) {
  return open_process(identity).has_value();
}

}  // namespace agent_vm

#include "os/lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/time.h>

#include <cerrno>
#include <csignal>

namespace agent_vm {
namespace {

// flock() has no timeout, so a timer interrupts it. The interval matters: a single signal that
// arrives just before flock() blocks would be lost.
class InterruptingTimer {
 public:
  explicit InterruptingTimer(const Deadline& deadline) : armed_(!deadline.is_never()) {
    if (!armed_) return;
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, &old_action_);
    const int ms = std::max(deadline.poll_ms(), 1);
    const itimerval timer{{0, 20'000}, {ms / 1000, ms % 1000 * 1000}};
    ::setitimer(ITIMER_REAL, &timer, nullptr);
  }
  ~InterruptingTimer() {
    if (!armed_) return;
    const itimerval off{};
    ::setitimer(ITIMER_REAL, &off, nullptr);
    ::sigaction(SIGALRM, &old_action_, nullptr);
  }
  InterruptingTimer(const InterruptingTimer&) = delete;
  InterruptingTimer& operator=(const InterruptingTimer&) = delete;

 private:
  bool armed_;
  struct sigaction old_action_ {};
};

// A description of its own, whose lock nobody shares by accident.
Result<Fd> open_for_lock(int dir) {
  Fd own(::openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!own) return fail_errno(errno, "cannot open a directory to lock it");
  return own;
}

}  // namespace

Result<std::optional<DirectoryLock>> DirectoryLock::try_acquire(int dir) {
  Fd own = TRY(open_for_lock(dir));
  if (::flock(own.get(), LOCK_EX | LOCK_NB) == 0) return DirectoryLock(std::move(own));
  if (errno != EWOULDBLOCK) return fail_errno(errno, "cannot lock a directory");
  return std::nullopt;
}

Result<DirectoryLock> DirectoryLock::acquire(int dir, const Deadline& deadline) {
  Fd own = TRY(open_for_lock(dir));
  if (::flock(own.get(), LOCK_EX | LOCK_NB) == 0) return DirectoryLock(std::move(own));
  const InterruptingTimer timer(deadline);
  while (::flock(own.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return fail_errno(errno, "cannot lock a directory");
    if (deadline.expired()) {
      return fail(ErrorKind::kTimeout, "another agent-vm command is working on this VM");
    }
  }
  return DirectoryLock(std::move(own));
}

}  // namespace agent_vm

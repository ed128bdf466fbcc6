#include "os/interrupt.h"

#include <poll.h>
#include <sys/signalfd.h>

#include <cerrno>

namespace agent_vm {

Result<InterruptWatch> InterruptWatch::start() {
  sigset_t signals;
  sigset_t old;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, number);
  if (::sigprocmask(SIG_BLOCK, &signals, &old) != 0) {
    return fail_errno(errno, "cannot block signals");
  }
  Fd fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return fail_errno(errno, "cannot watch signals");
  return InterruptWatch(std::move(fd), old);
}

InterruptWatch::~InterruptWatch() {
  if (fd_) ::sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
}

Status InterruptWatch::check() const {
  pollfd waiting{fd_.get(), POLLIN, 0};
  // The signal is not read: whoever asks next must see it too.
  if (::poll(&waiting, 1, 0) == 1) return fail(ErrorKind::kInterrupted, "interrupted");
  return {};
}

}  // namespace agent_vm

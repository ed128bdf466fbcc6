// Ctrl-C as a descriptor, for operations that have something to clean up. While one of these
// exists, SIGINT, SIGTERM and SIGHUP no longer end the process: they make fd() readable.
#pragma once

#include <csignal>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

class InterruptWatch {
 public:
  static Result<InterruptWatch> start();
  InterruptWatch(InterruptWatch&& other) noexcept = default;
  InterruptWatch& operator=(InterruptWatch&&) = delete;
  // Signals that came in the meantime are delivered, and end the process as they always do.
  ~InterruptWatch();

  // For poll(), and for Command::interrupt_fd.
  int fd() const { return fd_.get(); }
  // kInterrupted once a signal has come.
  Status check() const;

 private:
  InterruptWatch(Fd fd, const sigset_t& old) : fd_(std::move(fd)), old_mask_(old) {}
  Fd fd_;
  sigset_t old_mask_;
};

}  // namespace agent_vm

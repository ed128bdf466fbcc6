// What ends a build before it is done: the user's patience, by --timeout or by Ctrl-C.
#pragma once

#include <poll.h>

#include "base/deadline.h"
#include "base/result.h"
#include "os/run.h"

namespace agent_vm {

struct Limits {
  int interrupt_fd = -1;  // of an InterruptWatch
  Deadline deadline = Deadline::never();

  void apply_to(Command& command) const {
    command.interrupt_fd = interrupt_fd;
    command.deadline = deadline;
  }
  // For work of our own, now and then.
  Status check() const {
    pollfd waiting{interrupt_fd, POLLIN, 0};
    if (interrupt_fd >= 0 && ::poll(&waiting, 1, 0) == 1) {
      return fail(ErrorKind::kInterrupted, "interrupted");
    }
    if (deadline.expired()) return fail(ErrorKind::kTimeout, "the image was not built in time");
    return {};
  }
};

}  // namespace agent_vm

// Kernel locks on directories. The kernel releases one when its holder dies, however it dies, so
// that a command killed while it held the lock never blocks the next one (F13).
#pragma once

#include <optional>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

class DirectoryLock {
 public:
  // Waits for exclusive ownership of the directory open as `dir` until the deadline. The lock
  // lives on a description of its own, which no child inherits unless it is given fd().
  static Result<DirectoryLock> acquire(int dir, const Deadline& deadline);

  // Without waiting: nothing when somebody else holds it.
  static Result<std::optional<DirectoryLock>> try_acquire(int dir);

  // For a child that shall hold the lock, too: it lasts until the last of both has closed it.
  int fd() const { return fd_.get(); }

 private:
  explicit DirectoryLock(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace agent_vm

#include "support/turn.h"

#include <fcntl.h>

#include <cerrno>

#include "base/fd.h"
#include "support/options.h"

namespace agent_vm::test {

namespace {

// Bytes of the file that are locked. Who waits for others holds the gate meanwhile, so that they
// do not go on to their next tests for ever.
constexpr off_t kGate = 0;
constexpr off_t kTurn = 1;

// Of the open file: the kernel gives it up when its holder dies, and each test has a deadline.
void lock(short type, off_t byte) {
  static const Fd file(
      options().turns.empty() ? -1 : ::open(options().turns.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) return;
  struct flock range {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = byte;
  range.l_len = 1;
  while (::fcntl(file.get(), F_OFD_SETLKW, &range) != 0 && errno == EINTR) continue;
}

void take(short type) {
  lock(F_WRLCK, kGate);
  lock(type, kTurn);
  lock(F_UNLCK, kGate);
}

}  // namespace

Turn::Turn() {
  take(F_RDLCK);
}

Turn::~Turn() {
  lock(F_UNLCK, kTurn);
}

void Turn::alone() {
  lock(F_UNLCK, kTurn);
  take(F_WRLCK);
}

}  // namespace agent_vm::test

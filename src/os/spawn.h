// Starting a child process with exactly what it is meant to have: its arguments, its environment,
// its descriptors, its namespaces. All programs of this project that spawn are single-threaded, so
// ordinary C++ may run between fork and exec.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

struct SpawnSpec {
  struct Descriptor {
    int ours;    // stays owned by the caller
    int theirs;  // number in the child
  };

  std::vector<std::string> argv;         // argv[0] is a path, or a name: PATH, then /usr/sbin
  std::vector<std::string> environment;  // the whole of it, "NAME=value"
  std::vector<Descriptor> descriptors;   // anything not listed is closed; 0-2 default to /dev/null
  std::string working_directory;         // empty: the caller's
  bool new_session = false;              // setsid(): a group of its own, no terminal

  // Three optional steps between fork and exec, in this order. A failure of any of them ends the
  // child and is spawn()'s error.
  std::function<Status()> prepare_in_child;  // e.g. unshare(CLONE_NEWUSER)
  std::function<Status(pid_t)> in_parent;    // e.g. writes the id maps, while the child waits
  std::function<Status()> in_child;          // e.g. mounts, drops privileges
  // Runs instead of exec: a child that is a fork of this program. Returns the exit status. Of the
  // descriptors only those listed stay open, under the numbers listed.
  std::function<int()> main_instead_of_exec;
};

// A running child and the duty to reap it.
class Child {
 public:
  Child() = default;
  Child(pid_t pid, Fd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}

  pid_t pid() const { return pid_; }
  // Readable once the child has ended: give it to the event loop or to poll().
  int pidfd() const { return pidfd_.get(); }
  explicit operator bool() const { return static_cast<bool>(pidfd_); }

  // Sends a signal; a child that has ended is not an error.
  Status signal(int number) const;
  // Reaps. False when it is still running at the deadline.
  struct Exit {
    int code = -1;                 // exit status, or -1
    int signal = 0;                // the signal that ended it, or 0
    std::string describe() const;  // "exited with status 1", "was killed by SIGKILL"
  };
  Result<Exit> wait(const Deadline& deadline = Deadline::never());

 private:
  pid_t pid_ = -1;
  Fd pidfd_;
};

// Returns once exec has succeeded; otherwise the error says which step of the child failed.
Result<Child> spawn(const SpawnSpec& spec);

// The environment for programs that work for the user on the host (git, ssh): PATH, HOME, USER,
// LANG, LC_*, TERM, TMPDIR, XDG_* and certificate locations. Nothing else leaks into children
// (S26).
std::vector<std::string> host_environment();

// "SIGKILL" for 9; "signal 99" for unknown ones.
std::string signal_name(int number);

}  // namespace agent_vm

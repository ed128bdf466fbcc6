// Starting programs: in a process group of their own, with an environment and descriptors that are
// listed and nothing else, and watched by pidfd.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm::process {

using Environment = std::map<std::string, std::string>;

struct SpawnSpec {
  // argv[0] is a path, or a name that is looked up in PATH of `environment`.
  std::vector<std::string> argv;
  Environment environment;
  // Working directory: a descriptor when it was checked before (>= 0 wins), or a path; empty:
  // inherited.
  int cwd_fd = -1;
  std::string cwd;
  // Borrowed until spawn() returns; -1 is /dev/null.
  int stdin_fd = -1;
  int stdout_fd = -1;
  int stderr_fd = -1;
};

struct ExitStatus {
  bool signaled = false;
  int value = 0;  // exit status, or signal
  bool success() const { return !signaled && value == 0; }
};
// "exited with status 1", "was killed by signal 9 (Killed)"
std::string to_string(ExitStatus status);

// A child that leads its own session and process group. It must be reaped: by reap(), or by the
// destructor, which kills what is left of the group first.
class Process {
 public:
  Process() = default;
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  ~Process();

  pid_t pid() const { return pid_; }
  // Readable once the leader has exited.
  int pidfd() const { return pidfd_.get(); }
  bool running() const { return pid_ > 0; }

  // To every process of the group. Harmless after the reaping.
  void kill_group(int signal) const;
  // Waits for the leader (at once when the pidfd is readable), then kills what is left of its
  // group: before the pid is given back, so that the group's number cannot have a new owner.
  ExitStatus reap();

 private:
  friend Result<Process> spawn(const SpawnSpec& spec);
  pid_t pid_ = 0;
  Fd pidfd_;
};

Result<Process> spawn(const SpawnSpec& spec);

struct Pipe {
  Fd read;
  Fd write;
};
Result<Pipe> make_pipe();

// Where `name` is found in the PATH of an environment; a name with a slash is itself.
Result<std::string> find_program(const std::string& name, const Environment& environment);

}  // namespace agent_vm::process

// Running a program to its end: git, ssh-keygen, qemu-img, mmdebstrap.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "os/spawn.h"

namespace agent_vm {

struct Command {
  std::vector<std::string> argv;
  std::optional<std::vector<std::string>> environment;  // default: host_environment()
  std::vector<std::string> extra_environment;           // added to it
  std::string working_directory;
  std::string input;                               // what the program reads on its stdin
  std::vector<SpawnSpec::Descriptor> descriptors;  // besides 0-2
  std::size_t max_output = 16U << 20U;             // bytes per stream; more is an error
  Deadline deadline = Deadline::never();
  int interrupt_fd = -1;  // of an InterruptWatch: the program is killed when it becomes readable
  // Called for each line as it arrives, for progress. Optional.
  std::function<void(std::string_view)> on_error_line;
  std::function<Status()> in_child;  // as in SpawnSpec
};

struct CommandOutput {
  Child::Exit exit;
  std::string out;
  std::string error;
  bool ok() const { return exit.code == 0; }
};

// An error when the program cannot be started, says too much, or outlives the deadline (it is
// then killed with its whole process group). A non-zero exit is not an error here.
Result<CommandOutput> run(const Command& command);

// As run(), and a non-zero exit is an error that shows the last lines of stderr as evidence.
Result<CommandOutput> run_checked(const Command& command);

}  // namespace agent_vm

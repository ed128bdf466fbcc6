// Running programs from tests, always under a limit.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "os/spawn.h"

namespace agent_vm::test {

// Nothing in these tests takes longer; what does hangs.
constexpr std::chrono::seconds kPatience{300};

struct Ran {
  int code = -1;   // exit status, or -1
  int signal = 0;  // that ended it, or 0
  bool timed_out = false;
  double seconds = 0;
  std::string out;
  std::string error;

  bool ok() const { return code == 0; }
  // Everything, for a failed assertion.
  std::string describe() const;
};

struct RunOptions {
  std::string input;
  std::string directory;                 // empty: the caller's
  std::vector<std::string> environment;  // "NAME=value", over the caller's; "NAME" removes
  std::chrono::milliseconds patience = kPatience;
};

Ran run_program(const std::vector<std::string>& argv, const RunOptions& options = {});

// A program that runs while the test goes on. The destructor kills it and reaps it.
class Background {
 public:
  // Its output goes to files below `scratch`.
  Background(const std::vector<std::string>& argv, const std::string& scratch,
             const RunOptions& options = {});
  Background(Background&&) = default;
  Background& operator=(Background&&) = delete;
  ~Background();

  pid_t pid() const { return child_.pid(); }
  void signal(int number);
  // Kills it when it still runs by then.
  Ran wait(std::chrono::milliseconds patience = kPatience);

 private:
  Child child_;
  std::string output_;
  std::string error_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::optional<Ran> ran_;
};

// True as soon as `condition` holds; false when it still does not after `patience`. For what has no
// event of its own, such as another process's disappearance from a list.
template <typename Condition>
bool eventually(std::chrono::milliseconds patience, Condition condition) {
  const auto deadline = Deadline::in(patience);
  while (!condition()) {
    if (deadline.expired()) return false;
    const timespec pause{0, 20'000'000};
    ::nanosleep(&pause, nullptr);
  }
  return true;
}

}  // namespace agent_vm::test

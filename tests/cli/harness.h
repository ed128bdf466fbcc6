// Runs the real agent-vm in a home, a state directory and a repository of its own.
#pragma once

#include <gmock/gmock.h>

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "os/run.h"

namespace agent_vm {

struct Outcome {
  int code = -1;   // exit status, or -1
  int signal = 0;  // that ended it, or 0
  std::string out;
  std::string error;
};

class CliTest : public testing::Test {
 protected:
  CliTest();
  ~CliTest() override;

  std::string home() const { return root_ + "/home"; }
  std::string state() const { return root_ + "/vms"; }
  std::string repo() const { return root_ + "/repo"; }

  // `agent-vm --state-dir <state()> arguments...`, called in repo().
  Outcome agent_vm(std::vector<std::string> arguments);
  // The same without --state-dir, from another place, or with more environment.
  Outcome plain(std::vector<std::string> arguments, const std::string& directory,
                std::vector<std::string> environment = {});
  // On a terminal where somebody types `typed`; what both streams showed is in `out`.
  Outcome on_terminal(std::vector<std::string> arguments, const std::string& typed,
                      std::vector<std::string> environment = {});
  Command command(std::vector<std::string> arguments) const;

  // git in `directory`; the test fails when git does.
  std::string git(const std::string& directory, std::vector<std::string> arguments);
  // A repository with a commit.
  void make_repository(const std::string& path);
  // A shell script that must succeed.
  std::string shell(const std::string& script);

  void write(const std::string& path, std::string_view text);
  std::string read(const std::string& path);
  // Names in a directory; empty when it does not exist.
  std::vector<std::string> entries(const std::string& path);

  // The refusal is clear, has that exit status, and leaves nothing in the state directory.
  void expect_refused(const Outcome& outcome, int code, const std::string& message);

  const std::string& root() const { return root_; }

 private:
  std::vector<std::string> environment_;
  std::string root_;
};

bool is_root();
// Sets "NAME=value" in an environment, whatever NAME was.
void set_variable(std::vector<std::string>& environment, const std::string& variable);

}  // namespace agent_vm

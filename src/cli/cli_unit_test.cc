#include <gmock/gmock.h>

#include "cli/escaping_pipe.h"
#include "cli/exit_code.h"
#include "cli/remote.h"
#include "os/run.h"

namespace agent_vm {
namespace {

TEST(EscapingPipe, S25_HoldsBackOnlyTheBeginningOfACharacter) {
  EXPECT_EQ(incomplete_tail(""), 0U);
  EXPECT_EQ(incomplete_tail("abc"), 0U);
  EXPECT_EQ(incomplete_tail("\xC3"), 1U);
  EXPECT_EQ(incomplete_tail("x\xE2\x82"), 2U);
  EXPECT_EQ(incomplete_tail("\xF0\x9F\x9F"), 3U);
  EXPECT_EQ(incomplete_tail("\xF0\x9F\x9F\xA2"), 0U);
  EXPECT_EQ(incomplete_tail("\x80\x80\x80\x80"), 0U);  // no character at all: escaped at once
}

TEST(EscapingPipe, S25_DropsTheCarriageReturnOfALinesEndOnly) {
  EXPECT_EQ(harmless("a\r\nb\n"), "a\nb\n");
  EXPECT_EQ(harmless("good\rbad\n"), "good\\x0dbad\n");
  EXPECT_EQ(harmless("\x1b[2J\r"), "\\x1b[2J\\x0d");
}

TEST(RemoteCommand, MeansExactlyItsArgumentsAndKeepsTheExitStatus) {
  const std::string pid_file = testing::TempDir() + "/cli_unit_test_pid";
  const auto status_of = [&](const std::vector<std::string>& argv) {
    std::string line = remote_command_line(argv, pid_file);
    const std::string folder = "/workspace";
    line.replace(line.find(folder), folder.size(), "/");
    return run({.argv = {"sh", "-c", line}}).value();
  };
  EXPECT_EQ(status_of({"printf", "<%s>", "a b", "$(id)", "'", ""}).out, "<a b><$(id)><'><>");
  EXPECT_EQ(status_of({"sh", "-c", "exit 41"}).exit.code, 41);
  EXPECT_EQ(status_of({"sh", "-c", "kill -TERM $$"}).exit.code, 128 + 15);
  EXPECT_NE(::access(pid_file.c_str(), F_OK), 0);
}

TEST(ExitCode, IsTheOneThatTheManualPromises) {
  EXPECT_EQ(exit_code(ErrorKind::kFailed), 1);
  EXPECT_EQ(exit_code(ErrorKind::kInvalidInput), 2);
  EXPECT_EQ(exit_code(ErrorKind::kNotRunning), 3);
  EXPECT_EQ(exit_code(ErrorKind::kNotFound), 5);
  EXPECT_EQ(exit_code(ErrorKind::kTimeout), 6);
  EXPECT_EQ(exit_code(ErrorKind::kMissing), 7);
  EXPECT_EQ(exit_code(ErrorKind::kInterrupted), 130);
}

}  // namespace
}  // namespace agent_vm

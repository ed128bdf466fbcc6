#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>

#include "process/capture.h"
#include "process/child.h"

namespace agent_vm::process {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

SpawnSpec shell(const std::string& script) {
  SpawnSpec spec;
  spec.argv = {"/bin/sh", "-c", script};
  spec.environment = {{"PATH", "/usr/bin:/bin"}};
  return spec;
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

TEST(Capture, CollectsBothOutputsAndTheStatus) {
  const auto captured = run_captured(shell("cat; echo oops >&2; exit 3"), "input");
  ASSERT_TRUE(captured);
  EXPECT_EQ(captured->out, "input");
  EXPECT_EQ(captured->err, "oops\n");
  EXPECT_EQ(to_string(captured->status), "exited with status 3");
}

TEST(Capture, OutputIsCapped) {
  CaptureLimits limits;
  limits.max_output = 1000;
  const auto captured = run_captured(shell("yes | head -c 1000000"), {}, limits);
  ASSERT_TRUE(captured);
  EXPECT_EQ(captured->out.size(), 1000U);
  EXPECT_TRUE(captured->truncated);
}

TEST(Capture, LargeInputAndOutputDoNotDeadlock) {
  const std::string input(1 << 20, 'x');
  CaptureLimits limits;
  limits.max_output = input.size();
  const auto captured = run_captured(shell("cat"), input, limits);
  ASSERT_TRUE(captured);
  EXPECT_EQ(captured->out, input);
}

TEST(Capture, TimeoutKillsTheGroup) {
  CaptureLimits limits;
  limits.timeout = 100ms;
  const auto captured = run_captured(shell("sleep 100 & sleep 100"), {}, limits);
  ASSERT_FALSE(captured);
  EXPECT_EQ(captured.error().kind(), ErrorKind::kTimeout);
}

TEST(Spawn, SaysWhatCannotBeRun) {
  SpawnSpec spec = shell("");
  spec.argv = {"no-such-command"};
  const auto missing = spawn(spec);
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message(), HasSubstr("no-such-command"));
  spec.argv = {"/etc/passwd"};
  EXPECT_THAT(spawn(spec).error().message(), HasSubstr("Permission denied"));
  spec = shell("true");
  spec.cwd = "/no/such/folder";
  EXPECT_THAT(spawn(spec).error().message(), HasSubstr("/no/such/folder"));
}

TEST(Spawn, ChildGetsNothingThatIsNotListed) {
  ::setenv("AGENT_VM_CANARY", "leak", 1);
  const Fd leak(::dup(STDERR_FILENO));  // deliberately inheritable
  const auto captured =
      run_captured(shell(fmt::format("env; test -e /proc/self/fd/{} || echo closed", leak.get())));
  ASSERT_TRUE(captured);
  EXPECT_THAT(captured->out, testing::Not(HasSubstr("AGENT_VM_CANARY")));
  EXPECT_THAT(captured->out, HasSubstr("closed"));
}

struct Recorded {
  std::string out;
  std::string err;
  std::optional<ExitStatus> exit;
};

Child::Events record(Recorded& run) {
  return {[&run](std::string_view bytes) { run.out += bytes; },
          [&run](std::string_view bytes) { run.err += bytes; },
          [&run](ExitStatus status) { run.exit = status; }};
}

TEST(Child, OutputIsCompleteBeforeTheExit) {
  for (int i = 0; i < 50; ++i) {
    boost::asio::io_context io;
    Recorded run;
    auto child =
        Child::start(io.get_executor(), shell("cat; echo two; echo three >&2"), record(run));
    ASSERT_TRUE(child);
    (*child)->write("one\n");
    (*child)->close_stdin();
    io.run();
    EXPECT_EQ(run.out, "one\ntwo\n");
    EXPECT_EQ(run.err, "three\n");
    ASSERT_TRUE(run.exit);
    EXPECT_TRUE(run.exit->success());
  }
}

TEST(Child, StopIsEofThenTermThenKill) {
  const StopPolicy quick{50ms, 50ms};
  struct Case {
    const char* script;
    const char* expected;
  };
  for (const Case& c :
       {Case{"cat", "exited with status 0"}, Case{"sleep 100", "signal 15"},
        Case{"trap '' TERM; echo ready; while :; do sleep 100; done", "signal 9"}}) {
    boost::asio::io_context io;
    Recorded run;
    auto child = Child::start(io.get_executor(), shell(c.script), record(run));
    ASSERT_TRUE(child);
    if (std::string_view(c.script).find("ready") != std::string_view::npos) {
      while (run.out.empty()) io.run_one();  // the trap is set
    }
    (*child)->stop(quick);
    io.run();
    ASSERT_TRUE(run.exit);
    EXPECT_THAT(to_string(*run.exit), HasSubstr(c.expected)) << c.script;
  }
}

TEST(Child, ItsGroupEndsWithIt) {
  boost::asio::io_context io;
  Recorded run;
  // The grandchild ignores SIGTERM and SIGHUP and holds the pipe. `read` waits until it is there.
  auto child = Child::start(
      io.get_executor(),
      shell("sh -c 'trap \"\" TERM HUP; echo $$; exec sleep 1000' & read line; exit 0"),
      record(run));
  ASSERT_TRUE(child);
  while (run.out.find('\n') == std::string::npos) io.run_one();
  const Fd grandchild(static_cast<int>(::syscall(SYS_pidfd_open, std::stoi(run.out), 0)));
  ASSERT_TRUE(grandchild);
  (*child)->write("go\n");
  io.run();
  ASSERT_TRUE(run.exit);
  pollfd ended{grandchild.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&ended, 1, 5000), 1);
}

TEST(Child, AThousandLivesLeaveNothing) {
  const std::size_t before = open_descriptors();
  boost::asio::io_context io;
  for (int i = 0; i < 1000; ++i) {
    Recorded run;
    SpawnSpec spec;
    spec.argv = {"/bin/true"};
    auto child = Child::start(io.get_executor(), spec, record(run));
    ASSERT_TRUE(child);
    io.restart();
    io.run();
    ASSERT_TRUE(run.exit);
  }
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);  // no zombie
  EXPECT_LE(open_descriptors(), before + 4);       // the event loop's own
}

TEST(Child, AReaderThatStopsReadingIsFelt) {
  boost::asio::io_context io;
  Recorded run;
  auto child =
      Child::start(io.get_executor(), shell("yes | head -c 10000000; exec sleep 100"), record(run));
  ASSERT_TRUE(child);
  (*child)->pause_output(true);
  io.run_for(200ms);
  const std::size_t paused_at = run.out.size();
  EXPECT_LE(paused_at, 200'000U);
  (*child)->pause_output(false);
  while (run.out.size() < 10'000'000U) io.run_one();
  (*child)->signal(SIGKILL);
  io.run();
}

}  // namespace
}  // namespace agent_vm::process

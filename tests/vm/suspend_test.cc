// suspend and resume: what goes on, what does not, and that nothing is ever lost silently.
#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "support/mcp.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::IsEmpty;

class SuspendTest : public RunningVmTest {
 protected:
  static Ran suspend(const std::vector<std::string>& more = {}) {
    vm().close_ssh();
    std::vector<std::string> arguments{"suspend", vm().name()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return vm().agent(arguments);
  }
  static Ran resume() { return vm().agent({"resume", vm().name()}); }
  static std::string state() { return vm().status().value("status", ""); }
  static std::string saved() { return vm().directory() + "/suspended"; }
  // A process that counts, in memory alone, and answers on a FIFO when it is asked.
  static void start_counter() {
    vm().guest_says(
        "mkdir -p /tmp/c && cd /tmp/c && rm -f ask say && mkfifo ask say && "
        "(setsid sh -c 'n=0; while read x < ask; do n=$((n+1)); echo $n > say; done' "
        ">/dev/null 2>&1 < /dev/null &)");
  }
  static std::string count() {
    return vm().guest_says("cd /tmp/c && echo x > ask && timeout 10 cat say");
  }
};

TEST_F(SuspendTest, ProcessesAndMemoryGoOnAndTheHostsMemoryIsFree) {
  start_counter();
  EXPECT_EQ(count(), "1");
  EXPECT_EQ(count(), "2");
  const std::string before = vm().root_says("cat /proc/sys/kernel/random/boot_id /etc/machine-id");
  const std::string key = vm().root_says("cat /etc/ssh/ssh_host_ed25519_key.pub");
  vm().guest_says(
      "echo kept > /workspace/of-the-share; echo kept > ~/of-the-disk; echo kept > /dev/shm/m");
  const auto footprint = vm().footprint();
  const Ran suspended = suspend();
  ASSERT_TRUE(suspended.ok()) << suspended.describe();
  EXPECT_THAT(vm().leftovers(footprint), IsEmpty());
  const auto status = vm().status();
  EXPECT_EQ(status["status"], "Suspended") << status.dump();
  EXPECT_THAT(vm().agent({"list"}).out, HasSubstr("Suspended"));
  EXPECT_TRUE(fs::exists(saved()));

  const Ran resumed = resume();
  ASSERT_TRUE(resumed.ok()) << resumed.describe();
  EXPECT_FALSE(fs::exists(saved()));
  EXPECT_EQ(count(), "3") << "the same process, with what it remembered";
  EXPECT_EQ(vm().root_says("cat /proc/sys/kernel/random/boot_id /etc/machine-id"), before);
  EXPECT_EQ(vm().root_says("cat /etc/ssh/ssh_host_ed25519_key.pub"), key);
  EXPECT_EQ(vm().guest_says("cat /workspace/of-the-share ~/of-the-disk /dev/shm/m"),
            "kept\nkept\nkept");
  const auto clock = parse_unsigned(vm().guest_says("date +%s"));
  EXPECT_NEAR(static_cast<double>(clock.value_or(0)), static_cast<double>(::time(nullptr)), 10);
  const McpClient client(vm().port(), vm().token());
  EXPECT_THAT(client.call("exec", {{"command", "cat /workspace/of-the-share"}}), HasSubstr("kept"));

  // The control: after a stop nothing of this goes on. `start` resumes, too.
  ASSERT_TRUE(suspend().ok());
  ASSERT_TRUE(vm().agent({"start", vm().name()}).ok());
  EXPECT_EQ(count(), "4");
  ASSERT_TRUE(vm().stop().ok());
  ASSERT_TRUE(vm().start());
  EXPECT_FALSE(vm().guest("ls /tmp/c/ask || ls /dev/shm/m").ok());
  EXPECT_EQ(vm().guest_says("cat ~/of-the-disk"), "kept");
  EXPECT_FALSE(resume().out.empty());
}

TEST_F(SuspendTest, WhoHasFilesOfTheWorkspaceOpenIsAReasonNotTo) {
  start_counter();
  EXPECT_EQ(count(), "1");
  vm().guest_says("cd /workspace && (setsid sleep 1000 > /workspace/open 2>&1 < /dev/null &)");
  ASSERT_TRUE(vm().guest_sees("pgrep -x sleep", seconds(30)));
  const McpClient client(vm().port(), vm().token());
  const Ran refused = suspend();
  EXPECT_FALSE(refused.ok());
  EXPECT_THAT(refused.error, HasSubstr("sleep 1000")) << refused.describe();
  EXPECT_THAT(refused.error, HasSubstr("suspend --force"));
  // It runs on as it was, the session of the agent service included.
  EXPECT_EQ(state(), "Running");
  EXPECT_THAT(client.call("exec", {{"command", "ls"}}), HasSubstr("open"));
  EXPECT_EQ(count(), "2");

  const Ran forced = suspend({"--force"});
  ASSERT_TRUE(forced.ok()) << forced.describe();
  const Ran resumed = resume();
  ASSERT_TRUE(resumed.ok()) << resumed.describe();
  EXPECT_EQ(count(), "3");
  // The process lives, its files are gone; the workspace is there for everybody else.
  EXPECT_EQ(vm().guest_says("cd /proc/$(pgrep -x sleep)/cwd 2>/dev/null && ls . 2>&1 || echo lost"),
            "lost");
  EXPECT_EQ(vm().guest_says("cd /workspace && echo new > open && cat open"), "new");
  vm().guest_says("pkill -x sleep");
}

TEST_F(SuspendTest, AnOpenSshSessionAndACallEndAndWhatTheyStartedGoesOn) {
  vm().guest_says(
      "(setsid nohup sh -c 'echo $$ > /tmp/long; sleep 1000' >/dev/null 2>&1 < /dev/null &)");
  ASSERT_TRUE(vm().guest_sees("test -s /tmp/long", seconds(30)));
  const std::string pid = vm().guest_says("cat /tmp/long");
  Background session(
      vm().agent_argv({"exec", vm().name(), "--", "sh", "-c", "cd /; touch /tmp/on; sleep 1000"}),
      vm().root(), vm().agent_options());
  ASSERT_TRUE(vm().guest_sees("test -e /tmp/on", seconds(30)));
  const McpClient client(vm().port(), vm().token());
  Background call(client.exec_argv("touch /workspace/called; sleep 500"), vm().root());
  ASSERT_TRUE(eventually(seconds(30), [&] { return fs::exists(vm().workspace() + "/called"); }));
  // Its shell is in /workspace.
  EXPECT_THAT(suspend().error, HasSubstr("sleep 1000"));
  ASSERT_TRUE(suspend({"--force"}).ok());
  // Both ends: the command's on the host, and in the guest after the resume.
  EXPECT_NE(session.wait().code, 0);
  const Ran called = call.wait(seconds(5));
  EXPECT_FALSE(called.timed_out)
      << "a call that is under way ends with an error, or without an answer";
  EXPECT_EQ(called.out.find("exited with status 0"), std::string::npos) << called.describe();
  ASSERT_TRUE(resume().ok());
  EXPECT_EQ(vm().guest_says("ps -o comm= -p " + pid), "sh");
  EXPECT_EQ(client.post(R"({"jsonrpc":"2.0","id":7,"method":"ping"})").status, 200)
      << "the gateway keeps its sessions when it is stopped";
  EXPECT_EQ(vm().root_says("pgrep -c -f 'sshd: dev@' || true"), "2")
      << "the test's and the kept one";
  vm().guest_says("pkill sleep");
}

TEST_F(SuspendTest, ARunningNpmCiFailsAndCanBeRunAgain) {
  vm().guest_says(
      "cd /workspace && printf '{\"name\":\"a\",\"version\":\"1.0.0\",\"scripts\":{\"preinstall\":"
      "\"test -e /tmp/second || { touch /tmp/in-npm; sleep 1000; }\"}}' > package.json && "
      "printf '{\"name\":\"a\",\"version\":\"1.0.0\",\"lockfileVersion\":3,\"packages\":{\"\":"
      "{\"name\":\"a\",\"version\":\"1.0.0\",\"hasInstallScript\":true}}}' > package-lock.json && "
      "(setsid sh -c 'npm ci; echo $? > /tmp/npm-ended' > /tmp/npm-log 2>&1 < /dev/null &)");
  ASSERT_TRUE(vm().guest_sees("test -e /tmp/in-npm", seconds(90)));
  EXPECT_THAT(suspend().error, HasSubstr("npm ci"));
  ASSERT_TRUE(suspend({"--force"}).ok());
  ASSERT_TRUE(resume().ok());
  vm().guest_says("pgrep -f 'npm ci' > /dev/null && pkill -x sleep");
  ASSERT_TRUE(vm().guest_sees("test -s /tmp/npm-ended", seconds(90)));
  EXPECT_NE(vm().guest_says("cat /tmp/npm-ended"), "0") << vm().guest_says("cat /tmp/npm-log");
  // The control, and the way out.
  const Ran again = vm().guest("touch /tmp/second; cd /workspace && npm ci", seconds(120));
  EXPECT_TRUE(again.ok()) << again.describe();
}

TEST_F(SuspendTest, StopGivesUpWhatWasSavedAndSaysSo) {
  vm().guest_says("echo here > /dev/shm/m");
  ASSERT_TRUE(suspend().ok());
  const Ran stopped = vm().stop();
  EXPECT_TRUE(stopped.ok());
  EXPECT_THAT(stopped.error, HasSubstr("given up")) << stopped.describe();
  EXPECT_EQ(state(), "Stopped");
  EXPECT_FALSE(fs::exists(saved()));
  EXPECT_FALSE(resume().ok());
  ASSERT_TRUE(vm().start());
  EXPECT_FALSE(vm().guest("cat /dev/shm/m").ok());
}

TEST_F(SuspendTest, RestartBeginsAnewAndResetTakesTheDisk) {
  vm().guest_says("echo here > /dev/shm/m; echo disk > ~/d; sync");
  ASSERT_TRUE(suspend().ok());
  const Ran restarted = vm().agent({"restart", vm().name()});
  ASSERT_TRUE(restarted.ok()) << restarted.describe();
  EXPECT_FALSE(fs::exists(saved()));
  EXPECT_FALSE(vm().guest("cat /dev/shm/m").ok());
  EXPECT_EQ(vm().guest_says("cat ~/d"), "disk");
  ASSERT_TRUE(suspend().ok());
  const Ran reset = vm().agent({"reset", "--yes", vm().name()});
  EXPECT_FALSE(fs::exists(saved())) << reset.describe();
  ASSERT_TRUE(vm().ensure_running());
  EXPECT_FALSE(vm().guest("cat ~/d").ok());
}

TEST_F(SuspendTest, S27_ADamagedOneIsAnErrorAndNothingIsLost) {
  vm().guest_says("echo here > /dev/shm/m");
  ASSERT_TRUE(suspend().ok());
  for (const auto* file : {"pages", "map", "devices", "root.qcow2", "machine.json"}) {
    const std::string path = saved() + "/" + file;
    const std::string whole = read_text(path);
    std::string damaged = whole;
    damaged[damaged.size() / 2] ^= 1;
    write_file(path, damaged);
    const Ran started = vm().agent({"start", vm().name()});
    EXPECT_FALSE(started.ok()) << file;
    EXPECT_THAT(started.error, HasSubstr("agent-vm stop")) << started.describe();
    EXPECT_EQ(state(), "Suspended");
    write_file(path, whole.substr(0, whole.size() / 2));
    EXPECT_FALSE(vm().agent({"start", vm().name()}).ok()) << file;
    write_file(path, whole);
  }
  // Another QEMU: said, and nothing given up.
  const std::string manifest = read_text(saved() + "/machine.json");
  auto other = nlohmann::json::parse(manifest);
  other["about"]["qemu"] = "QEMU emulator version 1.0";
  other["about"]["key"] = "0";
  write_file(saved() + "/machine.json", other.dump());
  const Ran started = vm().agent({"start", vm().name()});
  EXPECT_THAT(started.error, HasSubstr("QEMU was 'QEMU emulator version 1.0'"))
      << started.describe();
  write_file(saved() + "/machine.json", manifest);
  // The control: whole again, it goes on.
  const Ran resumed = resume();
  ASSERT_TRUE(resumed.ok()) << resumed.describe();
  EXPECT_EQ(vm().guest_says("cat /dev/shm/m"), "here");
}

// Whenever the supervisor is killed, the VM is suspended as a whole, or crashed as by any kill.
TEST_F(SuspendTest, F14_KilledAtAnyStepItIsSuspendedOrNot) {
  int suspended = 0;
  for (const auto* step : {"rest:", "of memory saved", "the VM ends: suspended"}) {
    vm().guest_says("echo here > /dev/shm/m");
    vm().close_ssh();
    const auto length = vm().file("logs/supervisor.log").size();
    const auto who = vm().supervisor();
    ASSERT_TRUE(who);
    const auto footprint = vm().footprint();
    Background command(vm().agent_argv({"suspend", vm().name()}), vm().root(),
                       vm().agent_options());
    EXPECT_TRUE(eventually(seconds(60), [&] {
      return vm().file("logs/supervisor.log").find(step, length) != std::string::npos ||
             !is_running(*who);
    })) << step;
    ::kill(who->pid, SIGKILL);
    command.wait();
    EXPECT_TRUE(eventually(seconds(10), [&] { return !is_running(*who); }));
    const std::string now = state();
    EXPECT_TRUE(now == "Suspended" || now == "Crashed") << step << ": " << now;
    suspended += now == "Suspended" ? 1 : 0;
    const Ran started = vm().agent({"start", vm().name()});
    ASSERT_TRUE(started.ok()) << started.describe();
    // The control: what is in memory is there exactly after a resume.
    EXPECT_EQ(vm().guest("cat /dev/shm/m").ok(), now == "Suspended") << step;
  }
  EXPECT_GE(suspended, 1);
}

}  // namespace
}  // namespace agent_vm::test

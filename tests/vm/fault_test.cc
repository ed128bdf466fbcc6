// Something dies or hangs while the VM runs (F1, F4-F6, F13, F16, F18): everything goes, the next
// command tells the truth, and start works.
#include <csignal>

#include "base/text.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr int kNotRunning = 3;
constexpr int kTimeout = 6;

class FaultTest : public RunningVmTest {
 protected:
  // Nothing of that run is left after at most `patience`, and status says so.
  void expect_gone(const Footprint& before, milliseconds patience) {
    std::vector<std::string> processes;
    EXPECT_TRUE(eventually(patience, [&] {
      processes = before.leftovers();
      return processes.empty();
    })) << join(processes, "\n");
  }
  nlohmann::json expect_status(const std::string& expected) {
    const Ran ran = vm().agent({"status", vm().name(), "--json"});
    EXPECT_EQ(ran.code, kNotRunning) << ran.describe();
    const auto status = nlohmann::json::parse(ran.out, nullptr, false);
    EXPECT_EQ(status.value("status", ""), expected) << ran.describe();
    return status;
  }
  void expect_start_works() {
    EXPECT_TRUE(vm().start());
    EXPECT_EQ(vm().guest_says("echo alive"), "alive");
  }
};

TEST_F(FaultTest, F1_KillingTheSupervisorTakesEverythingWithIt) {
  alone();  // it measures seconds
  const auto before = vm().footprint();
  ASSERT_GE(before.processes.size(), 5U);  // supervisor, init, QEMU, virtiofsd, relay
  ASSERT_FALSE(before.leftovers().empty()) << "the control: they are seen while they run";
  ::kill(vm().supervisor()->pid, SIGKILL);
  expect_gone(before, seconds(2));
  const auto status = expect_status("Crashed");
  EXPECT_THAT(status.value("reason", ""), HasSubstr("supervisor was killed"));
  expect_start_works();
}

TEST_F(FaultTest, F4_KillingQemuIsACrashWithAReason) {
  const auto before = vm().footprint();
  ::kill(vm().child("qemu"), SIGKILL);
  expect_gone(before, seconds(10));
  EXPECT_THAT(vm().leftovers(before), IsEmpty());
  const Ran ran = vm().agent({"status", vm().name()});
  EXPECT_EQ(ran.code, kNotRunning);
  EXPECT_THAT(ran.out, HasSubstr("🔴 VM Status: Crashed\n"));
  EXPECT_THAT(ran.out, HasSubstr("QEMU was killed by SIGKILL"));
  expect_start_works();
}

TEST_F(FaultTest, F4_ACrashShowsTheConsolesTail) {
  const auto before = vm().footprint();
  vm().root_says("echo the-last-words > /dev/ttyS0");
  EXPECT_TRUE(eventually(seconds(30), [&] {
    return vm().file("logs/console.log").find("the-last-words") != std::string::npos;
  }));
  ::kill(vm().child("qemu"), SIGSEGV);
  expect_gone(before, seconds(10));
  const auto status = expect_status("Crashed");
  EXPECT_THAT(status.value("reason", ""), HasSubstr("SIGSEGV"));
  EXPECT_THAT(status["evidence"].dump(), HasSubstr("the-last-words"));
}

TEST_F(FaultTest, F5_AGuestThatPowersOffHasStopped) {
  const auto before = vm().footprint();
  vm().guest_root("systemctl poweroff");
  expect_gone(before, seconds(60));
  EXPECT_THAT(vm().leftovers(before), IsEmpty());
  const auto status = expect_status("Stopped");
  EXPECT_THAT(status.value("reason", ""), HasSubstr("powered off"));
}

TEST_F(FaultTest, F5_AGuestThatRebootsHasStopped) {
  const auto before = vm().footprint();
  vm().guest_root("systemctl reboot");
  expect_gone(before, seconds(60));
  EXPECT_THAT(vm().leftovers(before), IsEmpty());
  const auto status = expect_status("Stopped");
  EXPECT_THAT(status.value("reason", ""), HasSubstr("asked for a reboot; start it again"));
}

TEST_F(FaultTest, F5_AGuestThatPanicsHasCrashed) {
  const auto before = vm().footprint();
  vm().guest_root("sync; echo c > /proc/sysrq-trigger", seconds(20));
  expect_gone(before, seconds(60));
  const auto status = expect_status("Crashed");
  EXPECT_THAT(status.value("reason", ""), HasSubstr("panic"));
  EXPECT_THAT(status["evidence"].dump(), HasSubstr("Kernel panic"));
  expect_start_works();
}

TEST_F(FaultTest, F6_WithoutVirtiofsdTheVmIsStoppedAndExplained) {
  const auto before = vm().footprint();
  ::kill(vm().child("virtiofsd"), SIGKILL);
  expect_gone(before, seconds(5));
  EXPECT_THAT(vm().leftovers(before), IsEmpty());
  const auto status = expect_status("Crashed");
  EXPECT_THAT(status.value("reason", ""), HasSubstr("virtiofsd was killed by SIGKILL"));
  expect_start_works();
}

TEST_F(FaultTest, F7_TheRelayIsReplaced) {
  const pid_t relay = vm().child("relay");
  ASSERT_GT(relay, 0);
  vm().close_ssh();
  ::kill(relay, SIGKILL);
  EXPECT_TRUE(eventually(seconds(30), [&] {
    const pid_t other = vm().child("relay");
    return other != 0 && other != relay;
  }));
  EXPECT_TRUE(vm().agent({"status", vm().name()}).ok());
}

TEST_F(FaultTest, F16_AHungSupervisorHangsNoCommand) {
  alone();  // it measures seconds
  const auto before = vm().footprint();
  const pid_t supervisor = vm().supervisor()->pid;
  vm().close_ssh();
  ::kill(supervisor, SIGSTOP);
  const Ran status = run_program(vm().agent_argv({"status", vm().name()}, {"--timeout", "2"}),
                                 vm().agent_options());
  EXPECT_LT(status.seconds, 8) << status.describe();
  EXPECT_NE(status.code, 0);
  EXPECT_THAT(status.out + status.error, Not(HasSubstr("VM Status: Running")));
  const Ran stop =
      run_program(vm().agent_argv({"stop", vm().name()}, {"--timeout", "2"}), vm().agent_options());
  EXPECT_EQ(stop.code, kTimeout) << stop.describe();
  EXPECT_LT(stop.seconds, 5);
  EXPECT_THAT(stop.error, HasSubstr("stop --force"));
  ASSERT_FALSE(before.leftovers().empty()) << "the control: it hung, it was not gone";

  EXPECT_TRUE(vm().stop({"--force"}).ok());
  expect_gone(before, seconds(2));
  EXPECT_THAT(vm().leftovers(before), IsEmpty());
}

TEST_F(FaultTest, F13_AKilledCommandLeavesNoLock) {
  // It holds the lock and waits for a supervisor that does not answer.
  const pid_t supervisor = vm().supervisor()->pid;
  vm().close_ssh();
  ::kill(supervisor, SIGSTOP);
  Background holder(vm().agent_argv({"stop", vm().name()}), vm().root(), vm().agent_options());
  const auto try_lock = [&](const char* patience) {
    return run_program(vm().agent_argv({"start", vm().name()}, {"--timeout", patience}),
                       vm().agent_options());
  };
  // The control: while it lives, nobody else gets the lock.
  EXPECT_TRUE(eventually(seconds(10), [&] {
    const Ran blocked = try_lock("1");
    return blocked.code == kTimeout &&
           blocked.error.find("another agent-vm command") != std::string::npos;
  })) << try_lock("1").describe();
  holder.signal(SIGKILL);
  holder.wait();
  ::kill(supervisor, SIGCONT);
  const Ran next = vm().agent({"start", vm().name()});
  EXPECT_TRUE(next.ok()) << next.describe();
}

TEST_F(FaultTest, F18_AGuestThatIgnoresPowerdownIsStoppedInTime) {
  const auto before = vm().footprint();
  vm().root_says(
      "systemctl mask --runtime poweroff.target systemd-poweroff.service halt.target\n"
      "systemctl stop qemu-guest-agent 2>/dev/null; systemctl kill -s KILL qemu-guest-agent; true");
  vm().close_ssh();
  const Ran stop = run_program(
      vm().agent_argv({"stop", vm().name(), "--json"}, {"--timeout", "16"}), vm().agent_options());
  EXPECT_TRUE(stop.ok()) << stop.describe();
  EXPECT_LT(stop.seconds, 16);
  EXPECT_THAT(nlohmann::json::parse(stop.out, nullptr, false).value("how", ""),
              AnyOf("qmp", "kill"));
  EXPECT_THAT(vm().leftovers(before), IsEmpty());
}

TEST_F(FaultTest, M5_AStopIsAskedOfTheGuest) {
  // The control for F18: an unharmed guest needs no force.
  const auto before = vm().footprint();
  const Ran stop = vm().stop({"--json"});
  EXPECT_TRUE(stop.ok()) << stop.describe();
  EXPECT_EQ(nlohmann::json::parse(stop.out, nullptr, false).value("how", ""), "guest");
  EXPECT_THAT(vm().leftovers(before), IsEmpty());
  EXPECT_EQ(expect_status("Stopped").value("reason", ""), "the guest powered off");
}

}  // namespace
}  // namespace agent_vm::test

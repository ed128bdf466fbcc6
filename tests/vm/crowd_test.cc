// Many commands at once (F12), and starts that are cut off in the middle (F14).
#include <csignal>
#include <map>
#include <set>

#include "base/text.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;

class CrowdTest : public RunningVmTest {
 protected:
  // Lets the VM's start go on for so long; returns what there was of it at the end.
  static Footprint watch(milliseconds patience) {
    Footprint seen;
    const auto until = Deadline::in(patience);
    do {
      if (const auto supervisor = vm().supervisor(); supervisor && is_running(*supervisor))
        seen = Footprint::of(supervisor->pid);
      const timespec pause{0, 5'000'000};
      ::nanosleep(&pause, nullptr);
    } while (!until.expired());
    return seen;
  }
};

TEST_F(CrowdTest, F12_SixtyFourCommandsAtOnce) {
  alone();  // it takes the whole machine
  const auto before = vm().footprint();
  vm().close_ssh();
  std::vector<std::pair<std::string, Background>> crowd;
  crowd.reserve(64);
  for (int i = 0; i < 64; ++i) {
    // Mostly readers; one of each eight wants it to run, one of them wants it stopped.
    const std::vector<std::vector<std::string>> kinds{{"list"},
                                                      {"list", "--json"},
                                                      {"config", vm().name()},
                                                      {"start", vm().name()},
                                                      {"list"},
                                                      {"config", vm().name(), "--json"},
                                                      {"stop", vm().name()},
                                                      {"status", vm().name()}};
    const auto& verb = kinds[static_cast<std::size_t>(i) % kinds.size()];
    crowd.emplace_back(verb[0], Background(vm().agent_argv(verb, {"--timeout", "25"}), vm().root(),
                                           vm().agent_options()));
  }
  std::map<std::string, std::map<int, int>> outcomes;
  for (auto& [verb, command] : crowd) {
    const Ran ran = command.wait(seconds(120));
    EXPECT_FALSE(ran.timed_out) << verb << "\n" << ran.describe();
    ++outcomes[verb][ran.code];
    // 0 done; 3 not running; 4 not healthy (yet, or any more); 6 its turn did not come in time. A
    // failure has to be one that another command explains.
    if (verb == "list" || verb == "config") {
      EXPECT_EQ(ran.code, 0) << verb << "\n" << ran.describe();
    } else if (ran.code == 1) {
      EXPECT_EQ(verb, "start") << ran.describe();
      EXPECT_THAT(ran.error, AnyOf(HasSubstr("stopped"), HasSubstr("ended"), HasSubstr("SSH")))
          << ran.describe();
    } else {
      EXPECT_THAT(ran.code, AnyOf(0, 3, 4, 6)) << verb << "\n" << ran.describe();
    }
  }
  for (const auto& [verb, codes] : outcomes) {
    for (const auto& [code, times] : codes)
      std::printf("  %s: exit status %d, %d times\n", verb.c_str(), code, times);
  }
  // Whatever the order was, the outcome is one of two states, and whole.
  const Ran status = vm().agent({"status", vm().name()});
  EXPECT_THAT(status.code, AnyOf(0, 3)) << status.describe();
  const Ran stop = vm().stop();
  EXPECT_TRUE(stop.ok()) << stop.describe();
  EXPECT_THAT(vm().leftovers(before), IsEmpty());
}

TEST_F(CrowdTest, F12_SixtyFourStatusesAtOnceAllSeeAHealthyVm) {
  alone();  // it takes the whole machine
  vm().close_ssh();
  std::vector<Background> crowd;
  crowd.reserve(64);
  for (int i = 0; i < 64; ++i) {
    crowd.emplace_back(vm().agent_argv({"status", vm().name(), "--json"}), vm().root(),
                       vm().agent_options());
  }
  std::set<std::string> logins;
  for (auto& command : crowd) {
    const Ran ran = command.wait(seconds(120));
    EXPECT_EQ(ran.code, 0) << ran.describe();
    const auto status = nlohmann::json::parse(ran.out, nullptr, false);
    if (status.is_object()) logins.insert(status["ssh"]["milliseconds"].dump());
  }
  // The control: they did come at once. One after the other, each has a login of its own.
  EXPECT_LT(logins.size(), 32U);
  EXPECT_NE(vm().status()["ssh"]["milliseconds"], vm().status()["ssh"]["milliseconds"]);
}

TEST_F(CrowdTest, F14_AStartThatIsCutOffLeavesNothing) {
  ASSERT_TRUE(vm().stop({"--force"}).ok());
  const auto began = steady_clock::now();
  ASSERT_TRUE(vm().start());
  const auto whole = steady_clock::now() - began;
  ASSERT_TRUE(vm().stop({"--force"}).ok());
  // Early, in the middle and late; the command, and the supervisor behind it.
  int cut = 0;
  for (const double part : {0.01, 0.05, 0.2, 0.5, 0.8}) {
    const auto after = duration_cast<milliseconds>(whole * part);
    for (const bool the_supervisor : {false, true}) {
      Background start(vm().agent_argv({"start", vm().name()}), vm().root(), vm().agent_options());
      const Footprint seen = watch(after);
      const bool kill_supervisor = the_supervisor && !seen.processes.empty();
      if (kill_supervisor)
        ::kill(seen.processes[0].pid, SIGKILL);
      else
        start.signal(SIGKILL);
      const Ran ran = start.wait();
      EXPECT_FALSE(ran.timed_out) << ran.describe();
      // A start that was done by then was not cut off; whatever it left, stop ends.
      if (!seen.processes.empty() && !ran.ok()) ++cut;
      // stop tells the truth at once; then the supervisor of a command that died has cleaned up.
      const Ran stop = vm().agent({"stop", vm().name()});
      EXPECT_TRUE(stop.ok()) << stop.describe();
      EXPECT_TRUE(eventually(seconds(30), [&] { return vm().leftovers(seen).empty(); }))
          << after.count() << " ms: " << join(vm().leftovers(seen), "\n");
    }
  }
  EXPECT_GE(cut, 4) << "the control: that many were cut off while something ran";
  EXPECT_TRUE(vm().start());
}

TEST_F(CrowdTest, M5_StartAndStopInARow) {
  for (int cycle = 0; cycle < 3; ++cycle) {
    ASSERT_TRUE(vm().ensure_running());
    const auto before = vm().footprint();
    EXPECT_TRUE(vm().agent({"status", vm().name()}).ok());
    const Ran stop = vm().stop();
    EXPECT_TRUE(stop.ok()) << stop.describe();
    EXPECT_THAT(vm().leftovers(before), IsEmpty());
  }
}

}  // namespace
}  // namespace agent_vm::test

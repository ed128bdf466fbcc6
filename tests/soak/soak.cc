// agent-vm-soak: start and stop many times (M5), and kill the supervisor, QEMU or virtiofsd at
// random moments many times (F1, F4, F6, F14). After each, the next command tells the truth, start
// works, and nothing is left.
#include <gmock/gmock.h>

#include <csignal>
#include <random>

#include "base/text.h"
#include "support/image.h"
#include "support/main.h"
#include "support/vm.h"

namespace agent_vm::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::IsEmpty;

struct SoakOptions {
  int cycles = 50;
  int kills = 50;
  unsigned seed = 1;
};

SoakOptions& soak_options() {
  static SoakOptions all;
  return all;
}

class Soak : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto missing = missing_for_vms(); !missing.empty()) GTEST_SKIP() << missing;
    ASSERT_EQ(image_cache().problem, "");
  }
};

void progress(const std::string& what, int number, int of) {
  std::printf("%s %d of %d\n", what.c_str(), number, of);
  std::fflush(stdout);
}

TEST_F(Soak, M5_StartAndStop) {
  TestVm vm("soak-cycles");
  ASSERT_TRUE(vm.create());
  for (int cycle = 1; cycle <= soak_options().cycles; ++cycle) {
    progress("cycle", cycle, soak_options().cycles);
    ASSERT_TRUE(vm.start());
    const auto before = vm.footprint();
    const Ran stop = vm.stop();
    ASSERT_TRUE(stop.ok()) << stop.describe();
    ASSERT_THAT(vm.leftovers(before), IsEmpty());
    ASSERT_EQ(vm.agent({"status", vm.name()}).code, 3);
  }
}

// Waits for a random moment of a start or of the life after it, and remembers what there was.
Footprint until_random_moment(const TestVm& vm, milliseconds moment) {
  Footprint seen;
  const auto end = Deadline::in(moment);
  while (!end.expired()) {
    const auto supervisor = vm.supervisor();
    if (supervisor && is_running(*supervisor)) seen = Footprint::of(supervisor->pid);
    const timespec pause{0, 20'000'000};
    ::nanosleep(&pause, nullptr);
  }
  return seen;
}

TEST_F(Soak, F1_F4_F6_KilledAtRandomMoments) {
  std::printf("seed %u\n", soak_options().seed);
  std::mt19937 random(soak_options().seed);
  TestVm vm("soak-kills");
  ASSERT_TRUE(vm.create());
  const std::vector<std::string> victims{"supervisor", "qemu", "virtiofsd"};
  for (int kill = 1; kill <= soak_options().kills; ++kill) {
    const auto& victim = victims[random() % victims.size()];
    const milliseconds moment(random() % 25'000);
    progress(fmt::format("kill of {} after {} ms:", victim, moment.count()), kill,
             soak_options().kills);
    Background start(vm.agent_argv({"start", vm.name()}), vm.root(), vm.agent_options());
    const Footprint seen = until_random_moment(vm, moment);
    const auto supervisor = vm.supervisor();
    const pid_t pid =
        victim == "supervisor" ? (supervisor ? supervisor->pid : 0) : vm.child(victim);
    if (pid > 0) ::kill(pid, SIGKILL);
    const Ran started = start.wait(seconds(120));
    ASSERT_FALSE(started.timed_out) << started.describe();
    if (pid > 0) {
      std::vector<std::string> left;
      ASSERT_TRUE(eventually(seconds(10), [&] {
        left = seen.leftovers();
        return left.empty();
      })) << join(left, "\n");
      const Ran status = vm.agent({"status", vm.name()});
      ASSERT_EQ(status.code, 3) << status.describe();
    }
    ASSERT_TRUE(vm.start()) << victim << " after " << moment.count() << " ms";
    ASSERT_EQ(vm.agent({"status", vm.name()}).code, 0);
    const auto before = vm.footprint();
    const Ran stop = vm.stop();
    ASSERT_TRUE(stop.ok()) << stop.describe();
    ASSERT_THAT(vm.leftovers(before), IsEmpty());
  }
}

}  // namespace
}  // namespace agent_vm::test

int main(int argc, char** argv) {
  using namespace agent_vm::test;
  CLI::App app("Starts, stops and kills VMs, again and again.", "agent-vm-soak");
  add_common_options(app);
  app.add_option("--cycles", soak_options().cycles, "start and stop so often")
      ->capture_default_str();
  app.add_option("--kills", soak_options().kills, "kill so often")->capture_default_str();
  app.add_option("--seed", soak_options().seed, "of the random moments")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return prepare_run() ? run_tests({}) : 1;
}

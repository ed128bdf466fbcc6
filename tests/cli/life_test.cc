// update and destroy, and what happens when many commands meet or one is killed.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "harness.h"
#include "os/files.h"
#include "state/state_directory.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

class LifeTest : public CliTest {
 protected:
  void create() {
    const Outcome outcome = agent_vm({"create"});
    ASSERT_EQ(outcome.code, 0) << outcome.error;
  }
  std::string vm() { return state() + "/repo-main"; }
  nlohmann::json config() { return nlohmann::json::parse(read(vm() + "/config.json")); }

  // Starts agent-vm without waiting for it; its output goes to a file of that name.
  Child start(std::vector<std::string> arguments, const std::string& log) {
    arguments.insert(arguments.begin(), {"--state-dir", state()});
    const Command command = this->command(arguments);
    const Fd file(::open((root() + "/" + log).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    SpawnSpec spec;
    spec.argv = command.argv;
    spec.environment = *command.environment;
    spec.working_directory = repo();
    spec.descriptors = {{file.get(), 1}, {file.get(), 2}};
    return spawn(spec).value();
  }
};

TEST_F(LifeTest, UpdateChangesWhatItIsToldAndNothingElse) {
  create();
  const auto before = config();
  const Outcome outcome =
      agent_vm({"update", "main", "--memory", "512M", "--port", "18300", "--cpus", "1"});
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_THAT(outcome.out, HasSubstr("port: "));
  auto expected = before;
  expected["memory_bytes"] = 512ULL << 20;
  expected["port"] = 18300;
  expected["cpus"] = 1;
  expected["explicit"] = {"memory", "cpus", "port"};
  EXPECT_EQ(config(), expected);
  EXPECT_EQ(agent_vm({"update", "--memory", "1"}).code, 2);
  EXPECT_EQ(agent_vm({"update", "--port", config()["ssh_port"].dump()}).code, 2);
  EXPECT_EQ(config(), expected);
}

TEST_F(LifeTest, DestroyCanBeUndoneUntilItExpires) {
  create();
  write(vm() + "/workspace/precious", "work");
  const Outcome outcome = agent_vm({"destroy"});
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_THAT(outcome.out, HasSubstr("It is kept until 20"));
  EXPECT_THAT(outcome.out, HasSubstr("agent-vm undo-destroy repo-main"));
  EXPECT_THAT(entries(state()), ElementsAre("trash"));
  ASSERT_EQ(agent_vm({"undo-destroy", "repo-main"}).code, 0);
  EXPECT_EQ(read(vm() + "/workspace/precious"), "work");
  EXPECT_EQ(agent_vm({"config"}).code, 0);
  EXPECT_EQ(agent_vm({"undo-destroy"}).code, 5);

  // Expired: the name in the trash says when it was destroyed.
  ASSERT_EQ(agent_vm({"destroy"}).code, 0);
  const std::string entry = entries(state() + "/trash")[0];
  fs::rename(state() + "/trash/" + entry, state() + "/trash/repo-main@1000000000");
  create();
  ASSERT_EQ(agent_vm({"destroy", "--purge"}).code, 0);
  EXPECT_THAT(entries(state() + "/trash"), IsEmpty());
}

TEST_F(LifeTest, UndoDestroyTakesNoNameAndNoPortThatIsTakenNow) {
  create();
  const auto port = config()["port"];
  ASSERT_EQ(agent_vm({"destroy"}).code, 0);
  create();
  EXPECT_EQ(config()["port"], port);
  const Outcome taken = agent_vm({"undo-destroy"});
  EXPECT_EQ(taken.code, 2);
  EXPECT_THAT(taken.error, HasSubstr("VM configuration already exists"));
  EXPECT_EQ(entries(state() + "/trash").size(), 1U);
  ASSERT_EQ(agent_vm({"destroy", "--purge"}).code, 0);
  ASSERT_EQ(agent_vm({"create", "--branch", "b", "--port", port.dump()}).code, 0);
  const Outcome moved = agent_vm({"undo-destroy"});
  ASSERT_EQ(moved.code, 0) << moved.error;
  EXPECT_THAT(moved.error, HasSubstr("is taken; it is"));
  EXPECT_NE(config()["port"], port);
}

TEST_F(LifeTest, DestroyAsksOnATerminalOnly) {
  create();
  const Outcome no = on_terminal({"destroy"}, "n\n");
  EXPECT_EQ(no.code, 1);
  EXPECT_THAT(no.out, HasSubstr("Destroy VM repo-main?"));
  EXPECT_THAT(entries(state()), ElementsAre("repo-main"));
  EXPECT_EQ(on_terminal({"destroy", "--yes"}, "").code, 0);
  EXPECT_THAT(entries(state()), ElementsAre("trash"));
}

TEST_F(LifeTest, F15_AnInterruptedPurgeCanBeRepeated) {
  create();
  // As an interrupted one leaves it: out of its place, half removed.
  fs::create_directory(state() + "/trash");
  fs::rename(vm(), state() + "/trash/.purging-repo-main@1795504925");
  fs::remove_all(state() + "/trash/.purging-repo-main@1795504925/ssh");
  EXPECT_EQ(agent_vm({"undo-destroy", "repo-main"}).code, 5) << "half a VM was brought back";
  const Outcome again = agent_vm({"destroy", "repo-main", "--purge"});
  EXPECT_EQ(again.code, 0) << again.error;
  EXPECT_THAT(entries(state() + "/trash"), IsEmpty());
  EXPECT_EQ(agent_vm({"destroy", "repo-main", "--purge"}).code, 5);
}

TEST_F(LifeTest, F15_PurgeKilledAtAnyMomentLeavesNothingHalf) {
  std::mt19937 random(7);
  for (int round = 0; round < 10; ++round) {
    create();
    for (int i = 0; i < 300; ++i) write(fmt::format("{}/workspace/f{}", vm(), i), "x");
    Child child = start({"destroy", "repo-main", "--purge"}, "log");
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30'000));
    ASSERT_TRUE(child.signal(SIGKILL));
    ASSERT_TRUE(child.wait());
    // Either it is whole, or it is gone.
    if (fs::exists(vm())) {
      EXPECT_EQ(agent_vm({"config", "repo-main"}).code, 0);
    }
    const int code = agent_vm({"destroy", "repo-main", "--purge"}).code;
    EXPECT_TRUE(code == 0 || code == 5) << code;
    EXPECT_THAT(entries(state() + "/trash"), IsEmpty());
    EXPECT_FALSE(fs::exists(vm()));
  }
}

TEST_F(LifeTest, M16_DirectoriesOfTheGuestsOtherIdsAreRemovedToo) {
  if (is_root()) GTEST_SKIP() << "root may remove anything";
  if (::system("unshare --map-auto --map-root-user true 2>/dev/null") != 0) {
    GTEST_SKIP() << "needs subordinate ids (newuidmap)";
  }
  create();
  // A directory that belongs to a subordinate id, with something in it, closed to us.
  shell("unshare --map-auto --map-root-user sh -c 'cd " + vm() +
        "/workspace && mkdir -p theirs/deep && touch theirs/deep/file && chown -R 5:5 theirs && "
        "chmod 0700 theirs'");
  EXPECT_NE(::access((vm() + "/workspace/theirs/deep").c_str(), F_OK), 0) << "the control";
  const Outcome outcome = agent_vm({"destroy", "--purge"});
  EXPECT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_THAT(entries(state() + "/trash"), IsEmpty());
}

TEST_F(LifeTest, CtrlCDuringCreateLeavesNothing) {
  // A clone that lasts: git says that it is there, and waits.
  shell("mkdir bin; mkfifo hold");
  write(root() + "/bin/git", "#!/bin/sh\ncase \" $* \" in *' fetch '*) echo waiting > " + root() +
                                 "/hold; exec sleep 60;; esac\nexec " + shell("command -v git") +
                                 " \"$@\"\n");
  shell("chmod +x bin/git");
  Command base = command({"--state-dir", state(), "create"});
  SpawnSpec spec;
  spec.argv = base.argv;
  spec.environment = *base.environment;
  spec.environment[0] = "PATH=" + root() + "/bin:/usr/bin:/bin";
  spec.working_directory = repo();
  Child child = spawn(spec).value();
  EXPECT_EQ(read(root() + "/hold"), "waiting\n");  // blocks until the clone runs
  EXPECT_THAT(entries(state()), ElementsAre(StartsWith(".create-")));
  ASSERT_TRUE(child.signal(SIGINT));
  const auto exit = child.wait(Deadline::in(20s)).value();
  EXPECT_TRUE(exit.signal == SIGINT || exit.code == 130) << exit.describe();
  EXPECT_THAT(entries(state()), IsEmpty());
}

TEST_F(LifeTest, M4_TimeoutBoundsAClone) {
  fs::create_directory(root() + "/bin");
  write(root() + "/bin/git",
        "#!/bin/sh\ncase \" $* \" in *' fetch '*) exec sleep 60;; esac\nexec " +
            shell("command -v git") + " \"$@\"\n");
  shell("chmod +x bin/git");
  const auto before = std::chrono::steady_clock::now();
  const Outcome outcome = plain({"--state-dir", state(), "--timeout", "1", "create"}, repo(),
                                {"PATH=" + root() + "/bin:/usr/bin:/bin"});
  EXPECT_LT(std::chrono::steady_clock::now() - before, 5s);
  expect_refused(outcome, 6, "did not finish in time");
}

TEST_F(LifeTest, F13_ACreateKilledAtAnyMomentHoldsNobodyUp) {
  std::mt19937 random(11);
  for (int round = 0; round < 10; ++round) {
    Child child = start({"create"}, "log");
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 80'000));
    ASSERT_TRUE(child.signal(SIGKILL));
    ASSERT_TRUE(child.wait());
    const Outcome next = agent_vm({"--timeout", "20", "create"});
    EXPECT_TRUE(next.code == 0 || next.error.find("already exists") != std::string::npos)
        << next.error;
    EXPECT_THAT(entries(state()), ElementsAre("repo-main"));
    EXPECT_EQ(agent_vm({"config"}).code, 0);
    fs::remove_all(vm());
  }
}

TEST_F(LifeTest, F12_OfManyCreatesOneSucceeds) {
  constexpr int kMany = 64;
  std::vector<Child> children;
  for (int i = 0; i < kMany; ++i) children.push_back(start({"create"}, fmt::format("log{}", i)));
  int succeeded = 0;
  for (int i = 0; i < kMany; ++i) {
    const auto exit = children[static_cast<std::size_t>(i)].wait().value();
    const std::string log = read(fmt::format("{}/log{}", root(), i));
    if (exit.code == 0) {
      ++succeeded;
    } else {
      EXPECT_EQ(exit.code, 2) << log;
      EXPECT_THAT(log, HasSubstr("VM configuration already exists"));
    }
  }
  EXPECT_EQ(succeeded, 1);
  EXPECT_THAT(entries(state()), ElementsAre("repo-main"));
  EXPECT_EQ(agent_vm({"config"}).code, 0);
}

TEST_F(LifeTest, F12_DifferentVmsMadeAtOnceShareNoPort) {
  constexpr int kMany = 8;
  std::vector<Child> children;
  for (int i = 0; i < kMany; ++i) {
    children.push_back(start({"create", "--branch", fmt::format("b{}", i)}, fmt::format("l{}", i)));
  }
  for (auto& child : children) EXPECT_EQ(child.wait()->code, 0);
  std::set<int> ports;
  for (const auto& vm : nlohmann::json::parse(agent_vm({"list", "--json"}).out)) {
    ports.insert(vm["port"].get<int>());
    ports.insert(vm["ssh_port"].get<int>());
  }
  EXPECT_EQ(ports.size(), 2U * kMany);
}

// Each outcome must be one that some order of the commands explains, and what is left must be
// whole.
TEST_F(LifeTest, F12_64CommandsAtOnceOnOneVm) {
  create();
  const std::vector<std::vector<std::string>> verbs{{"update", "repo-main", "--memory", "512M"},
                                                    {"destroy", "repo-main"},
                                                    {"undo-destroy", "repo-main"},
                                                    {"create"},
                                                    {"config", "repo-main"},
                                                    {"list"},
                                                    {"update", "repo-main", "--memory", "1G"},
                                                    {"config", "main"}};
  std::vector<Child> children;
  for (std::size_t i = 0; i < 64; ++i) {
    children.push_back(start(verbs[i % verbs.size()], fmt::format("log{}", i)));
  }
  int made = 1;
  for (std::size_t i = 0; i < 64; ++i) {
    const auto& verb = verbs[i % verbs.size()][0];
    const auto exit = children[i].wait().value();
    const std::string log = read(fmt::format("{}/log{}", root(), i));
    SCOPED_TRACE(verb + ": " + log);
    if (verb == "create" && exit.code == 0) ++made;
    if (verb == "create" || verb == "undo-destroy") {
      EXPECT_TRUE(exit.code == 0 || exit.code == 2 || (exit.code == 5 && verb != "create"));
    } else if (verb == "list") {
      EXPECT_EQ(exit.code, 0);
    } else {
      EXPECT_TRUE(exit.code == 0 || exit.code == 5);
    }
  }
  // Every VM that was made is somewhere, whole, exactly once.
  const auto left = entries(state());
  const bool live = fs::exists(vm());
  EXPECT_EQ(static_cast<int>(entries(state() + "/trash").size()) + (live ? 1 : 0), made);
  for (const auto& name : left) EXPECT_TRUE(name == "repo-main" || name == "trash") << name;
  if (live) {
    EXPECT_EQ(agent_vm({"config", "repo-main"}).code, 0);
  }
}

}  // namespace
}  // namespace agent_vm

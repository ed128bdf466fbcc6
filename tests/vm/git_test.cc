// Git over SSH: by the owner's own ssh, to the repositories that a rule names, and in no other way.
// The other end is the VM's own sshd, by the name lo.test of this test's internet.
#include "vm/egress_suite.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;
using std::chrono::seconds;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class GitTest : public InternetTest {
 protected:
  void SetUp() override {
    InternetTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (!internet_) {
      vm_ = std::make_unique<TestVm>("git", VmOptions{.network = "allowlist"});
      internet_ = std::make_unique<Internet>(vm_->root() + "/internet");
      make_owner();
    }
    ASSERT_EQ(internet_->problem(), "");
    ASSERT_TRUE(vm_->ensure_running());
    know(vm().file("ssh/host_ed25519.pub"));
    const Ran added = run_program({"ssh-add", "-q", vm().directory() + "/ssh/id_ed25519"});
    ASSERT_TRUE(added.ok()) << added.describe();
    vm().guest(
        "test -e app.git || git init -q --bare -b main app.git; rm -rf clone; "
        "test -e other.git || git init -q --bare -b main other.git");
    base_ = fmt::format("ssh://dev@lo.test:{}/home/dev", vm().ssh_port());
  }
  static void TearDownTestSuite() {
    vm_.reset();
    internet_.reset();
    agent_.reset();
    ::unsetenv("SSH_AUTH_SOCK");
    ::setenv("HOME", old_home_.c_str(), 1);
  }

  static TestVm& vm() { return *vm_; }

  // A home and an agent of this test's own, which is all that the owner's ssh goes by.
  static void make_owner() {
    const std::string home = vm_->root() + "/home";
    fs::create_directories(home + "/.ssh");
    old_home_ = ::getenv("HOME");  // NOLINT(concurrency-mt-unsafe)
    const std::string socket = vm_->root() + "/agent";
    agent_ = std::make_unique<Background>(std::vector<std::string>{"ssh-agent", "-D", "-a", socket},
                                          vm_->root());
    eventually(seconds(10), [&] { return fs::exists(socket); });
    ::setenv("HOME", home.c_str(), 1);
    ::setenv("SSH_AUTH_SOCK", socket.c_str(), 1);
  }
  // Pins this host key, and no other.
  static void know(const std::string& public_key) {
    write_file(vm_->root() + "/home/.ssh/known_hosts",
               fmt::format("[lo.test]:{} {}", vm_->ssh_port(), public_key));
  }
  static Ran net(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "net");
    arguments.insert(arguments.end(), {"--vm", vm().name()});
    return vm().agent(arguments);
  }
  static json last_record() {
    const auto lines = split_lines(vm().agent({"net", "log", vm().name(), "--json"}).out);
    for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
      json record = json::parse(*line, nullptr, false);
      if (record.value("url", "").starts_with("ssh://")) return record;
    }
    return {};
  }

  std::string base_;

 private:
  static inline std::unique_ptr<TestVm> vm_;
  static inline std::unique_ptr<Internet> internet_;
  static inline std::unique_ptr<Background> agent_;
  static inline std::string old_home_;
};

constexpr const char* kCommit =
    "cd clone && date > file && git add file && "
    "git -c user.name=a -c user.email=a@localhost commit -q -m more && git push -q origin "
    "HEAD:main";

TEST_F(GitTest, M11_FetchAndPushAreAllowedApartAndByRepository) {
  const std::string app = base_ + "/app.git";
  const std::string rule = base_ + "/app";
  const Ran refused = vm().guest("git clone " + app + " clone");
  EXPECT_FALSE(refused.ok());
  EXPECT_THAT(refused.error, HasSubstr("no rule allows it"));
  EXPECT_THAT(refused.error,
              HasSubstr("agent-vm net allow --vm " + vm().name() + " 'fetch " + rule));
  EXPECT_EQ(last_record().value("decision", ""), "refuse");
  EXPECT_FALSE(net({"test", app, "--method", "fetch"}).ok());

  ASSERT_TRUE(net({"allow", "fetch " + rule}).ok());
  const Ran cloned = vm().guest("git clone -q " + app + " clone");
  EXPECT_TRUE(cloned.ok()) << cloned.describe();
  EXPECT_TRUE(net({"test", app, "--method", "fetch"}).ok());
  const Ran unpushed = vm().guest(kCommit);
  EXPECT_FALSE(unpushed.ok());
  EXPECT_THAT(unpushed.error, HasSubstr("'push " + rule));
  EXPECT_EQ(last_record().value("method", ""), "PUSH");

  ASSERT_TRUE(net({"allow", "push " + rule}).ok());
  const Ran pushed = vm().guest("cd clone && git push -q origin HEAD:main");
  EXPECT_TRUE(pushed.ok()) << pushed.describe();
  EXPECT_EQ(vm().guest_says("git -C app.git log --format=%s main"), "more");
  json record;
  eventually(seconds(10), [&] {
    record = last_record();
    return record.value("decision", "") == "allow";
  });
  EXPECT_EQ(record.value("url", ""), rule);
  EXPECT_EQ(record.value("status", -1), 0) << record;
  EXPECT_GT(record.value("sent", 0), 100) << record;

  // Another repository of the same host; another program; the host itself.
  EXPECT_THAT(vm().guest("git ls-remote " + base_ + "/other.git").error,
              HasSubstr("no rule allows it"));
  EXPECT_FALSE(vm().guest("/usr/lib/agent-vm/agent-vm-git-ssh dev@lo.test id").ok());
  EXPECT_THAT(vm().guest(fmt::format("ssh -p {} dev@lo.test id", vm().ssh_port())).error,
              HasSubstr("Connection refused"));
  // A refusing rule is stronger.
  ASSERT_TRUE(net({"deny", "push " + base_ + "/*"}).ok());
  EXPECT_FALSE(vm().guest("cd clone && git push -q origin HEAD:again").ok());
  EXPECT_TRUE(vm().guest("cd clone && git fetch -q").ok());
}

TEST_F(GitTest, S26_TheAgentStaysOutsideAndOnlyPinnedKeysCount) {
  const std::string app = base_ + "/app.git";
  ASSERT_TRUE(net({"allow", "fetch " + base_ + "/app"}).ok());
  EXPECT_TRUE(vm().guest("git ls-remote " + app).ok());  // the control
  EXPECT_EQ(vm().guest_says("echo $SSH_AUTH_SOCK"), "");
  EXPECT_EQ(vm().guest("find / -xdev -name 'agent.*' -type s 2>/dev/null").out, "");
  // Another key of the same host: one that we have not pinned.
  const std::string other = vm().root() + "/other_key";
  run_program({"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other});
  know(read_text(other + ".pub"));
  const Ran unknown = vm().guest("git ls-remote " + app);
  EXPECT_FALSE(unknown.ok());
  EXPECT_THAT(unknown.error, HasSubstr("agent-vm net log"));
  EXPECT_TRUE(eventually(seconds(10), [] {
    return last_record().value("error", "") == "Host key verification failed.";
  })) << last_record();
}

TEST_F(GitTest, S22_OffEndsWhatRuns) {
  ASSERT_TRUE(net({"allow", "fetch " + base_ + "/app"}).ok());
  // Holds its connection: the other end waits for what it wants.
  Background held(vm().agent_argv({"exec", vm().name(), "--", "sh", "-c",
                                   "sleep 600 | /usr/lib/agent-vm/agent-vm-git-ssh -p " +
                                       std::to_string(vm().ssh_port()) +
                                       " dev@lo.test \"git-upload-pack '/home/dev/app.git'\""}),
                  vm().root(), vm().agent_options());
  ASSERT_TRUE(eventually(
      seconds(30), [] { return vm().guest("pgrep -f 'git-upload-pack /home/dev/app.git'").ok(); }));
  ASSERT_TRUE(vm().agent({"net", "off", vm().name()}).ok());
  EXPECT_TRUE(eventually(seconds(30), [] {
    return !vm().guest("pgrep -f 'git-upload-pack /home/dev/app.git'").ok();
  }));
  const Ran refused = vm().guest("git ls-remote " + base_ + "/app.git");
  EXPECT_THAT(refused.error, HasSubstr("network of this VM is off"));
  held.signal(SIGKILL);
  ASSERT_TRUE(net({"mode", "allowlist"}).ok());
  EXPECT_TRUE(vm().guest("git ls-remote " + base_ + "/app.git").ok());
}

TEST_F(GitTest, F7_StatusSaysThatTheBrokerHasEnded) {
  ASSERT_TRUE(net({"allow", "fetch " + base_ + "/app"}).ok());
  EXPECT_EQ(vm().status()["egress"]["git"]["running"], true);  // the control
  const Ran found =
      run_program({"pgrep", "-x", "git-broker", "-P", std::to_string(vm().supervisor()->pid)});
  ASSERT_TRUE(found.ok()) << found.describe();
  ASSERT_EQ(::kill(std::stoi(found.out), SIGKILL), 0);
  EXPECT_TRUE(
      eventually(seconds(10), [] { return vm().status()["egress"]["git"]["running"] == false; }));
  EXPECT_THAT(vm().agent({"status", vm().name()}).out, HasSubstr("no git over SSH"));
  EXPECT_FALSE(vm().guest("timeout 30 git ls-remote " + base_ + "/app.git").ok());
  // The VM goes on, and its next start has another.
  ASSERT_TRUE(vm().stop().ok());
  ASSERT_TRUE(vm().start());
  EXPECT_TRUE(vm().guest("git ls-remote " + base_ + "/app.git").ok());
}

}  // namespace
}  // namespace agent_vm::test

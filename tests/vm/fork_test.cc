// fork: other VMs of a running one, that are not the same.
#include <csignal>
#include <filesystem>
#include <set>

#include "base/text.h"
#include "support/mcp.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

class ForkTest : public RunningVmTest {
 protected:
  void SetUp() override {
    RunningVmTest::SetUp();
    vm().close_ssh();
  }
  void TearDown() override {
    for (const auto& name : forks_) vm().agent({"destroy", "--purge", "--yes", name});
  }
  Ran fork(const std::string& name, const std::vector<std::string>& more = {}) {
    forks_.push_back(name);
    std::vector<std::string> arguments{"fork", vm().name(), "--name", name, "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return vm().agent(arguments);
  }
  static Ran in(const std::string& name, const std::string& script) {
    return vm().agent({"exec", name, "--", "sh", "-c", script});
  }
  static std::string says(const std::string& name, const std::string& script) {
    const Ran ran = in(name, script);
    EXPECT_TRUE(ran.ok()) << ran.describe();
    return std::string(trim(ran.out));
  }
  static std::string of_state(const std::string& path) { return vm().state() + "/" + path; }
  static std::vector<std::string> left() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(vm().state()))
      names.push_back(entry.path().filename().string());
    return names;
  }

  std::vector<std::string> forks_;
};

TEST_F(ForkTest, Identity_AForkIsTheSameGuestAndAnotherVm) {
  vm().guest_says(
      "mkdir -p /tmp/c && cd /tmp/c && rm -f ask say && mkfifo ask say && "
      "(setsid sh -c 'n=0; while read x < ask; do n=$((n+1)); echo $n > say; done' "
      ">/dev/null 2>&1 < /dev/null &)");
  const std::string count = "cd /tmp/c && echo x > ask && timeout 20 cat say";
  EXPECT_EQ(vm().guest_says(count), "1");
  vm().guest_says("echo disk > ~/d; echo share > /workspace/w");
  vm().close_ssh();
  const Ran forked = fork("twin");
  ASSERT_TRUE(forked.ok()) << forked.describe();

  // The same guest: its process remembers, its disk and its workspace are there.
  EXPECT_EQ(says("twin", count), "2");
  EXPECT_EQ(says("twin", "cat ~/d /workspace/w"), "disk\nshare");
  // And the source runs on.
  EXPECT_EQ(says(vm().name(), count), "2");
  EXPECT_EQ(says(vm().name(), count), "3");
  EXPECT_TRUE(vm().agent({"status", vm().name()}).ok());
  EXPECT_TRUE(vm().agent({"status", "twin"}).ok());

  // Another VM in all that names or admits one.
  const std::string script =
      "cat /proc/sys/kernel/random/boot_id; cat /etc/machine-id; hostname; "
      "cat /etc/ssh/ssh_host_ed25519_key.pub; cat /sys/class/net/eth0/address; "
      "cat /etc/ssh/authorized_keys; cat /etc/agent-vm/mcp-token; md5sum < /etc/agent-vm/ca.crt; "
      "head -c 16 /dev/urandom | md5sum; cat /proc/sys/kernel/random/uuid; date +%Y";
  const auto one = split_lines(says(vm().name(), script));
  const auto two = split_lines(says("twin", script));
  ASSERT_EQ(one.size(), two.size());
  ASSERT_EQ(one.size(), 11U);
  for (std::size_t i = 0; i + 1 < one.size(); ++i) EXPECT_NE(one[i], two[i]) << i;
  EXPECT_EQ(one.back(), two.back()) << "the control: the same script, line by line";
  const std::string token(trim(read_text(of_state("twin/mcp_token"))));
  const auto config = nlohmann::json::parse(read_text(of_state("twin/config.json")));
  const auto port = config["port"].get<std::uint16_t>();
  EXPECT_THAT(McpClient(port, token).call("exec", {{"command", "hostname"}}), HasSubstr("twin"));
  const std::string health = "{}";
  EXPECT_EQ(
      http_request(port, "POST", "/mcp", {"Authorization: Bearer " + vm().token()}, health).status,
      401);

  // Neither writes into the other's workspace or disk, now or after a boot.
  says("twin", "echo twin > /workspace/w; echo twin > ~/d; sync");
  EXPECT_EQ(says(vm().name(), "cat ~/d /workspace/w"), "disk\nshare");
  EXPECT_EQ(read_text(of_state("twin/workspace/w")), "twin\n");
  EXPECT_EQ(says("twin", "stat -c %U /workspace /workspace/w /workspace/README.md"),
            "dev\ndev\ndev");
  ASSERT_TRUE(vm().agent({"restart", "twin"}).ok());
  EXPECT_EQ(says("twin", "cat ~/d; ls /tmp/c 2>/dev/null || echo gone"), "twin\ngone");
}

TEST_F(ForkTest, ManyOfOneAndNothingIsLeft) {
  vm().guest_says("echo many > /dev/shm/m");
  vm().root_says("echo root > /workspace/of-root");
  vm().close_ssh();
  const Ran forked = fork("many", {"--count", "2"});
  forks_ = {"many-1", "many-2"};
  ASSERT_TRUE(forked.ok()) << forked.describe();
  std::set<std::string> ids;
  for (const auto& name : {std::string("many-1"), std::string("many-2"), vm().name()}) {
    EXPECT_EQ(says(name, "cat /dev/shm/m"), "many") << name;
    ids.insert(says(name, "cat /etc/machine-id"));
    EXPECT_EQ(says(name, "cd /workspace; stat -c %U of-root README.md; git status --short of-root"),
              "root\ndev\n?? of-root")
        << name;
  }
  EXPECT_EQ(ids.size(), 3U);
  EXPECT_FALSE(fs::exists(vm().directory() + "/fork.new"));
  EXPECT_FALSE(fs::exists(of_state("many-1/suspended")));
}

TEST_F(ForkTest, AnOpenSshSessionStaysWithTheSourceAndACallEnds) {
  Background session(
      vm().agent_argv(
          {"exec", vm().name(), "--", "sh", "-c",
           "cd /; touch /tmp/on; until [ -e /tmp/go ]; do sleep 0.2; done; echo stays"}),
      vm().root(), vm().agent_options());
  ASSERT_TRUE(vm().guest_sees("test -e /tmp/on", seconds(30)));
  const McpClient client(vm().port(), vm().token());
  Background call(client.exec_argv("touch /workspace/called; sleep 500"), vm().root());
  ASSERT_TRUE(eventually(seconds(30), [&] { return fs::exists(vm().workspace() + "/called"); }));
  // Its shell is in /workspace.
  EXPECT_THAT(fork("refused").out, HasSubstr("touch /tmp/on"));
  const Ran forked = fork("forced", {"--force"});
  ASSERT_TRUE(forked.ok()) << forked.describe();

  const Ran called = call.wait(seconds(5));
  EXPECT_FALSE(called.timed_out);
  EXPECT_EQ(called.out.find("exited with status 0"), std::string::npos) << called.describe();
  EXPECT_EQ(client.post(R"({"jsonrpc":"2.0","id":7,"method":"ping"})").status, 200);
  // The source has the session still; the fork only those that were opened to it.
  const std::string sessions = "pgrep -c -f '[s]shd: dev@' || true";
  EXPECT_EQ(says("forced", sessions), "1");
  EXPECT_GE(std::stoi(says(vm().name(), sessions)), 1);
  says(vm().name(), "touch /tmp/go");
  const Ran stayed = session.wait(seconds(30));
  EXPECT_EQ(stayed.code, 0) << stayed.describe();
  EXPECT_EQ(stayed.out, "stays\n");
  // An MCP session lasts in the fork as well, under its own token.
  const std::string token(trim(read_text(of_state("forced/mcp_token"))));
  const auto config = nlohmann::json::parse(read_text(of_state("forced/config.json")));
  const auto ping = [&](const std::string& bearer) {
    return McpClient(config["port"], bearer, client.session())
        .post(R"({"jsonrpc":"2.0","id":8,"method":"ping"})")
        .status;
  };
  EXPECT_EQ(ping(token), 200);
  EXPECT_EQ(ping(vm().token()), 401);
  says(vm().name(), "rm -f /tmp/go /workspace/called; pkill -x sleep || true");
}

TEST_F(ForkTest, F9_AForkThatFailsLeavesTheSourceRunningAndNothingElse) {
  vm().guest_says(
      "echo here > /dev/shm/m; (setsid sleep 1000 > /workspace/open 2>&1 < /dev/null &)");
  ASSERT_TRUE(vm().guest_sees("pgrep -x sleep", seconds(30)));
  vm().close_ssh();
  const auto before = left();
  const auto well = [&] {
    EXPECT_EQ(left(), before);
    EXPECT_FALSE(fs::exists(vm().directory() + "/fork.new"));
    EXPECT_EQ(says(vm().name(), "cat /dev/shm/m; ls /workspace/open"), "here\n/workspace/open");
    EXPECT_TRUE(vm().agent({"status", vm().name()}).ok());
  };
  const Ran refused = fork("busy");
  EXPECT_FALSE(refused.ok());
  EXPECT_THAT(refused.out, HasSubstr("sleep 1000")) << refused.describe();
  well();
  says(vm().name(), "pkill -x sleep; true");
  EXPECT_THAT(fork(vm().name()).out, HasSubstr("already exists"));
  forks_.clear();
  well();
  // The control: nothing stands in the way now.
  const Ran forked = fork("free");
  EXPECT_TRUE(forked.ok()) << forked.describe();
}

// No room for what is to be saved: found out when the guest's processors stand and its share is
// out.
TEST_F(ForkTest, F9_WithoutRoomTheSourceGoesOn) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can mount a small file system";
  ASSERT_TRUE(vm().stop({"--force"}).ok());
  auto owner = std::make_unique<TestVm>("small");
  TestVm& small = *owner;
  const std::string place = small.state();
  fs::create_directory(place);
  ASSERT_TRUE(
      run_program({"mount", "-t", "tmpfs", "-o", "size=1g,mode=0700", "small", place}).ok());
  const auto started = small.create_and_start();
  EXPECT_TRUE(started);
  if (started) {
    small.guest_says("echo here > /dev/shm/m; echo w > /workspace/w");
    const McpClient client(small.port(), small.token());
    const auto filler = fs::space(place).available - (40U << 20U);
    EXPECT_TRUE(run_program({"fallocate", "-l", std::to_string(filler), place + "/.filler"}).ok());
    for (const auto& arguments : {std::vector<std::string>{"suspend", small.name()},
                                  {"fork", small.name(), "--name", "none"}}) {
      const Ran failed = small.agent(arguments);
      EXPECT_FALSE(failed.ok());
      EXPECT_THAT(failed.error, HasSubstr("No space left")) << failed.describe();
      EXPECT_TRUE(small.agent({"status", small.name()}).ok());
      EXPECT_EQ(small.guest_says("cat /dev/shm/m /workspace/w"), "here\nw");
      EXPECT_THAT(client.call("exec", {{"command", "cat w"}}), HasSubstr("w"));
      for (const auto* left : {"/suspended", "/suspended.new", "/fork.new"})
        EXPECT_FALSE(fs::exists(small.directory() + left)) << left;
    }
    EXPECT_FALSE(fs::exists(small.state() + "/none"));
    // The control: with room, both go well.
    fs::remove(place + "/.filler");
    const Ran forked = small.agent({"fork", small.name(), "--name", "some"});
    EXPECT_TRUE(forked.ok()) << forked.describe();
    EXPECT_TRUE(small.agent({"destroy", "--purge", "--yes", "some"}).ok());
    small.close_ssh();
    const Ran suspended = small.agent({"suspend", small.name()});
    EXPECT_TRUE(suspended.ok()) << suspended.describe();
  }
  owner.reset();
  EXPECT_TRUE(run_program({"umount", "--lazy", place}).ok());
}

// The command is killed while the supervisor is at work: the source goes on by itself.
TEST_F(ForkTest, F14_TheCommandKilledInTheMiddle) {
  const auto before = left();
  const auto length = vm().file("logs/supervisor.log").size();
  Background command(vm().agent_argv({"fork", vm().name(), "--name", "cut"}), vm().root(),
                     vm().agent_options());
  EXPECT_TRUE(eventually(seconds(60), [&] {
    return vm().file("logs/supervisor.log").find("rest:", length) != std::string::npos;
  }));
  ::kill(command.pid(), SIGKILL);
  command.wait();
  EXPECT_TRUE(eventually(seconds(60), [&] { return vm().agent({"status", vm().name()}).ok(); }));
  EXPECT_EQ(says(vm().name(), "cat /workspace/README.md > /dev/null && echo read"), "read");
  // The next one takes away what that one left.
  const Ran forked = fork("next");
  EXPECT_TRUE(forked.ok()) << forked.describe();
  EXPECT_FALSE(fs::exists(vm().directory() + "/fork.new"));
  EXPECT_EQ(left().size(), before.size() + 1);
}

// The supervisor is killed, and the source with it: as by any kill, and no half of a fork is left.
TEST_F(ForkTest, F14_TheSupervisorKilledInTheMiddle) {
  vm().guest_says("echo kept > ~/kept; sync");
  vm().close_ssh();
  const auto before = left();
  const auto length = vm().file("logs/supervisor.log").size();
  const auto who = vm().supervisor();
  ASSERT_TRUE(who);
  Background command(vm().agent_argv({"fork", vm().name(), "--name", "half"}), vm().root(),
                     vm().agent_options());
  EXPECT_TRUE(eventually(seconds(60), [&] {
    return vm().file("logs/supervisor.log").find("rest:", length) != std::string::npos;
  }));
  EXPECT_EQ(vm().status()["status"], "Forking");
  ::kill(who->pid, SIGKILL);
  const Ran failed = command.wait();
  EXPECT_FALSE(failed.ok()) << failed.describe();
  EXPECT_EQ(left(), before);
  EXPECT_EQ(vm().status()["status"], "Crashed");
  // It starts again, on its own disk, and can be forked.
  ASSERT_TRUE(vm().start());
  EXPECT_FALSE(fs::exists(vm().directory() + "/fork.new"));
  EXPECT_EQ(says(vm().name(), "cat ~/kept"), "kept");
  const Ran forked = fork("whole");
  EXPECT_TRUE(forked.ok()) << forked.describe();
}

}  // namespace
}  // namespace agent_vm::test

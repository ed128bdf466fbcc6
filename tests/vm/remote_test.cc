// exec, shell and logs: what goes in and what comes out. fetch: what comes back, and what does not
// (S10).
#include <csignal>
#include <filesystem>

#include "base/text.h"
#include "support/mcp.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

class RemoteTest : public RunningVmTest {
 protected:
  static Ran exec(std::vector<std::string> command, const RunOptions& options = {}) {
    std::vector<std::string> arguments{"exec", vm().name(), "--"};
    arguments.insert(arguments.end(), command.begin(), command.end());
    return vm().agent(arguments, options);
  }
};

TEST_F(RemoteTest, Exec_PassesArgumentsInputOutputAndStatus) {
  const Ran words = exec({"printf", "%s|", "a b", "$HOME", "'", "*", "", "ü", "--help"});
  EXPECT_EQ(words.out, "a b|$HOME|'|*||ü|--help|") << words.describe();
  EXPECT_EQ(words.error, "");
  EXPECT_EQ(exec({"pwd"}).out, "/workspace\n");
  EXPECT_EQ(exec({"id", "-un"}).out, "dev\n");
  EXPECT_EQ(exec({"sh", "-c", "exit 7"}).code, 7);
  EXPECT_EQ(exec({"no-such-program"}).code, 127);
  const Ran both = exec({"sh", "-c", "cat; echo oops >&2"}, {.input = std::string("a\0b\n", 4)});
  EXPECT_EQ(both.out, std::string("a\0b\n", 4));
  EXPECT_EQ(both.error, "oops\n");
}

TEST_F(RemoteTest, Exec_ASignalReachesTheGuest) {
  Background command(vm().agent_argv({"exec", vm().name(), "--", "sh", "-c",
                                      "echo $$ > /tmp/exec.pid; exec sleep 1000"}),
                     vm().root(), vm().agent_options());
  vm().guest_says("while ! [ -s /tmp/exec.pid ]; do sleep 0.1; done");
  EXPECT_TRUE(vm().guest("kill -0 $(cat /tmp/exec.pid)").ok());  // the control
  command.signal(SIGTERM);
  EXPECT_FALSE(command.wait(seconds(10)).timed_out);
  EXPECT_TRUE(vm().guest("for i in $(seq 100); do kill -0 $(cat /tmp/exec.pid) 2>/dev/null || exit "
                         "0; sleep 0.1; done; exit 1")
                  .ok());
  vm().guest_says("rm /tmp/exec.pid");
}

TEST_F(RemoteTest, Exec_OfAStoppedVmSaysSo) {
  ASSERT_TRUE(vm().stop({"--force"}).ok());
  const Ran ran = exec({"true"});
  EXPECT_EQ(ran.code, 3) << ran.describe();
  EXPECT_THAT(ran.error, HasSubstr("agent-vm start"));
}

TEST_F(RemoteTest, Shell_RunsCommandsFromItsInput) {
  const Ran ran = vm().agent({"shell", vm().name()}, {.input = "echo in-$(hostname)\nexit 5\n"});
  EXPECT_THAT(ran.out, HasSubstr("in-" + vm().name())) << ran.describe();
  EXPECT_EQ(ran.code, 5);
}

TEST_F(RemoteTest, Logs_AreTheServicesJournal) {
  const Ran journal = vm().agent({"logs", vm().name()});
  EXPECT_TRUE(journal.ok()) << journal.describe();
  EXPECT_THAT(journal.out, HasSubstr("agent-mcp"));
  const Ran supervisor = vm().agent({"logs", vm().name(), "--supervisor"});
  EXPECT_THAT(supervisor.out, HasSubstr("start: identity after"));
}

TEST_F(RemoteTest, Fetch_BringsTheGuestsCommits) {
  const std::string ref = "refs/remotes/agent-vm/" + vm().name() + "/work";
  const std::string head = git(vm().repository(), {"rev-parse", "HEAD"});
  vm().guest_says(
      "cd /workspace && echo agent > agent.txt && git add agent.txt && "
      "git -c user.name=dev -c user.email=dev@localhost commit -q -m 'By the agent' && "
      "git tag by-the-agent");
  const Ran fetched = vm().agent({"fetch", vm().name()});
  EXPECT_TRUE(fetched.ok()) << fetched.describe();
  EXPECT_EQ(git(vm().repository(), {"log", "-1", "--format=%s", ref}), "By the agent");
  EXPECT_EQ(git(vm().repository(), {"show", ref + ":agent.txt"}), "agent");
  // And nothing else of the user's repository has changed.
  EXPECT_EQ(git(vm().repository(), {"rev-parse", "HEAD"}), head);
  EXPECT_EQ(git(vm().repository(), {"tag", "--list"}), "");
  EXPECT_EQ(git(vm().repository(), {"status", "--porcelain"}), "");

  // Rewritten history arrives, too.
  vm().guest_says(
      "cd /workspace && git -c user.name=dev -c user.email=dev@localhost commit -q --amend -m "
      "'Amended'");
  const Ran again = vm().agent({"fetch", vm().name()});
  EXPECT_TRUE(again.ok()) << again.describe();
  EXPECT_EQ(git(vm().repository(), {"log", "-1", "--format=%s", ref}), "Amended");
}

TEST_F(RemoteTest, Fetch_RefusesBrokenObjects) {
  // A tree with an entry `.git`, which a checkout would write into the repository's own folder.
  vm().guest_says(
      "cd /workspace && git checkout -q -B evil && blob=$(echo '[core]' | git hash-object -w "
      "--stdin) && tree=$(python3 -c \"import sys; sys.stdout.buffer.write(b'100644 .git\\\\0' + "
      "bytes.fromhex('$blob'))\" | git hash-object -w -t tree --literally --stdin) && "
      "commit=$(git -c user.name=x -c user.email=x@y commit-tree $tree -m evil) && "
      "git update-ref refs/heads/evil $commit");
  const Ran fetched = vm().agent({"fetch", vm().name()});
  EXPECT_FALSE(fetched.ok()) << fetched.describe();
  const std::string refs = git(vm().repository(), {"for-each-ref", "--format=%(refname)"});
  EXPECT_THAT(refs, Not(HasSubstr("evil")));
  // The control: git without the check takes it.
  const std::string naive = vm().root() + "/naive";
  git(vm().root(), {"init", "-q", naive});
  std::filesystem::copy(vm().workspace() + "/.git", vm().root() + "/stolen.git",
                        std::filesystem::copy_options::recursive);
  git(naive, {"fetch", "-q", vm().root() + "/stolen.git", "refs/heads/evil:refs/heads/evil"});
  EXPECT_THAT(git(naive, {"for-each-ref", "--format=%(refname)"}), HasSubstr("evil"));
  vm().guest_says(
      "cd /workspace && git symbolic-ref HEAD refs/heads/work && git branch -q -D evil "
      "&& git reset -q --hard");
}

TEST_F(RemoteTest, M15_ACommitMadeThroughMcpComesBack) {
  const McpClient client(vm().port(), vm().token());
  client.call("write", {{"path", "by-mcp.txt"}, {"content", "through the endpoint\n"}});
  EXPECT_EQ(read_text(vm().workspace() + "/by-mcp.txt"), "through the endpoint\n");
  EXPECT_THAT(client.call("exec", {{"command", "id -un; pwd"}}), HasSubstr("dev\\n/workspace"));
  client.call("git_commit", {{"message", "Through MCP"}});
  const Ran fetched = vm().agent({"fetch", vm().name()});
  EXPECT_TRUE(fetched.ok()) << fetched.describe();
  EXPECT_EQ(git(vm().repository(),
                {"log", "-1", "--format=%s", "refs/remotes/agent-vm/" + vm().name() + "/work"}),
            "Through MCP");
}

}  // namespace
}  // namespace agent_vm::test

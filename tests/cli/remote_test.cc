// shell, exec, logs and fetch against a stand-in for ssh that runs the remote command here, as sshd
// would in the guest: what the real client is told, and what we make of its answers.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"
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
using testing::Not;

class RemoteTest : public CliTest {
 protected:
  void SetUp() override {
    const Outcome outcome = agent_vm({"create"});
    ASSERT_EQ(outcome.code, 0) << outcome.error;
    // Run by root, the workspace belongs to dev of the guest.
    write(home() + "/.gitconfig", "[safe]\n\tdirectory = *\n");
    fs::create_directory(root() + "/bin");
    write(root() + "/bin/ssh", "#!/bin/sh\nprintf '%s\\n' \"$@\" >>" + root() + R"(/argv
env >>)" + root() + R"(/environment
for last; do :; done
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
# sshd gives each command a session of its own, in which no signal is ignored.
exec setsid -w env --default-signal sh -c "$(printf %s "$last" | sed 's#/workspace#)" +
                                   workspace() + "#g')\"\n");
    shell("chmod +x bin/ssh");
    path_ = "PATH=" + root() + "/bin:/usr/local/bin:/usr/bin:/bin";
  }

  std::string vm() { return state() + "/repo-main"; }
  std::string workspace() { return vm() + "/workspace"; }

  // This very process takes the part of the supervisor.
  void pretend_to_run() {
    const auto directory = StateDirectory::open(state()).value().vm("repo-main").value();
    const auto config = directory.read_config().value();
    ASSERT_TRUE(directory.write_run({identify(::getpid()).value(), utc_now(), "127.0.0.1",
                                     config.port, config.ssh_port, Accel::kTcg, "key"}));
  }

  Outcome with_ssh(std::vector<std::string> arguments, std::vector<std::string> environment = {}) {
    arguments.insert(arguments.begin(), {"--state-dir", state()});
    environment.push_back(path_);
    return plain(std::move(arguments), repo(), std::move(environment));
  }

  // A commit in the workspace, as an agent makes it.
  void commit(const std::string& file, std::string_view content, const std::string& message) {
    write(workspace() + "/" + file, content);
    git(workspace(), {"add", "."});
    git(workspace(), {"commit", "--quiet", "-m", message});
  }
  std::string objects() { return git(repo(), {"count-objects", "-v"}); }

  std::string path_;
};

TEST_F(RemoteTest, AVmThatDoesNotRunIsExitStatus3) {
  for (const std::vector<std::string>& verb : std::vector<std::vector<std::string>>{
           {"exec", "main", "--", "true"}, {"shell", "main"}, {"logs", "main"}}) {
    const Outcome outcome = with_ssh(verb);
    EXPECT_EQ(outcome.code, 3) << verb[0];
    EXPECT_THAT(outcome.error, HasSubstr("VM 'repo-main' is not running"));
    EXPECT_THAT(outcome.error, HasSubstr("agent-vm start repo-main"));
  }
  EXPECT_EQ(with_ssh({"exec", "main"}).code, 2);
}

TEST_F(RemoteTest, ExecPassesArgumentsStdinStreamsAndStatus) {
  pretend_to_run();
  const std::vector<std::string> awkward{"a b", "it's", "", "$HOME", "`id`", "\"", "*", "-x", "\n"};
  std::vector<std::string> arguments{"exec", "main", "--", "printf", "<%s>"};
  arguments.insert(arguments.end(), awkward.begin(), awkward.end());
  std::string expected;
  for (const auto& one : awkward) expected += "<" + one + ">";
  EXPECT_EQ(with_ssh(arguments).out, expected);
  EXPECT_EQ(with_ssh({"exec", "--", "pwd"}).out, workspace() + "\n");
  EXPECT_EQ(with_ssh({"exec", "--", "sh", "-c", "exit 42"}).code, 42);
  EXPECT_EQ(with_ssh({"exec", "--", "sh", "-c", "kill -9 $$"}).code, 137);
  EXPECT_EQ(with_ssh({"exec", "--", "sh", "-c", "echo o; echo e >&2"}).error, "e\n");
  EXPECT_EQ(with_ssh({"exec", "--", "no-such-program"}).code, 127);
  Command command = this->command({"--state-dir", state(), "exec", "--", "cat"});
  set_variable(*command.environment, path_);
  command.input = std::string("\0\x1b\xff raw bytes\n", 14);
  EXPECT_EQ(run(command)->out, command.input) << "a pipe gets every byte as it is";
}

TEST_F(RemoteTest, ExecSendsSignalsOn) {
  pretend_to_run();
  Command base =
      command({"--state-dir", state(), "exec", "--", "sh", "-c",
               "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.1; done"});
  set_variable(*base.environment, path_);
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const Fd reader(ends[0]);
  Fd writer(ends[1]);
  SpawnSpec spec;
  spec.argv = base.argv;
  spec.environment = *base.environment;
  spec.working_directory = repo();
  spec.descriptors = {{writer.get(), 1}, {2, 2}};
  Child child = spawn(spec).value();
  writer.reset();
  std::array<char, 6> ready{};
  ASSERT_EQ(::read(reader.get(), ready.data(), ready.size()), 6);
  ASSERT_TRUE(child.signal(SIGTERM));
  const auto exit = child.wait(Deadline::in(20s));
  if (!exit) {
    ASSERT_TRUE(child.signal(SIGKILL));
  }
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->code, 7);
  EXPECT_EQ(read_all(reader.get(), 1000), "got it\n");
}

TEST_F(RemoteTest, M4_TimeoutBoundsExec) {
  pretend_to_run();
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome = with_ssh({"--timeout", "1", "exec", "--", "sleep", "60"});
  EXPECT_EQ(outcome.code, 6) << outcome.error;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
}

TEST_F(RemoteTest, S25_ATerminalGetsNoControlBytesFromExec) {
  pretend_to_run();
  const Outcome outcome = on_terminal({"exec", "--", "printf", "\\033[31mred\\n"}, "", {path_});
  EXPECT_THAT(outcome.out, HasSubstr("\\x1b[31mred"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("\x1b")));
  // Anything else than a terminal gets every byte as it is.
  EXPECT_EQ(with_ssh({"exec", "--", "printf", "\\033[31mred\\n"}).out, "\x1b[31mred\n");
}

TEST_F(RemoteTest, S26_NothingOfTheOwnersGoesAlong) {
  pretend_to_run();
  EXPECT_EQ(with_ssh({"exec", "--", "true"}, {"CANARY=secret", "SSH_AUTH_SOCK=/tmp/agent"}).code,
            0);
  EXPECT_THAT(read(root() + "/environment"), Not(HasSubstr("CANARY")));
  EXPECT_THAT(read(root() + "/environment"), Not(HasSubstr("SSH_AUTH_SOCK")));
  const auto argv = split_lines(read(root() + "/argv"));
  for (const auto* option : {"IdentitiesOnly=yes", "IdentityAgent=none", "ForwardAgent=no",
                             "HostKeyAlias=repo-main", "StrictHostKeyChecking=yes", "/dev/null"}) {
    EXPECT_THAT(argv, testing::Contains(option));
  }
}

TEST_F(RemoteTest, M2_WhenSshFailsTheStepIsNamed) {
  pretend_to_run();
  write(root() + "/bin/ssh", "#!/bin/sh\nexit 255\n");
  const Outcome outcome = with_ssh({"exec", "--", "true"});
  EXPECT_EQ(outcome.code, 255);
  EXPECT_THAT(outcome.error, HasSubstr("SSH to VM 'repo-main' failed at the step 'port'"));
}

TEST_F(RemoteTest, S25_LogsEscapeWhatTheGuestPrinted) {
  EXPECT_EQ(agent_vm({"logs", "--console"}).code, 5);
  write(vm() + "/logs/console.log", "one\r\n\x1b]0;title\x07two\n\xC3\xA9\n");
  EXPECT_EQ(agent_vm({"logs", "--console"}).out, "one\n\\x1b]0;title\\x07two\n\xC3\xA9\n");
  EXPECT_EQ(agent_vm({"logs", "--console", "-n", "1"}).out, "\xC3\xA9\n");
  EXPECT_EQ(agent_vm({"logs", "--console", "--supervisor"}).code, 2);
  EXPECT_EQ(agent_vm({"logs", "--console", "-n", "x"}).code, 2);
}

TEST_F(RemoteTest, LogsFollowWhatComesAcrossRotation) {
  write(vm() + "/logs/console.log", "old\n");
  Command base = command({"--state-dir", state(), "logs", "--console", "--follow"});
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const Fd reader(ends[0]);
  Fd writer(ends[1]);
  SpawnSpec spec;
  spec.argv = base.argv;
  spec.environment = *base.environment;
  spec.working_directory = repo();
  spec.descriptors = {{writer.get(), 1}};
  Child child = spawn(spec).value();
  writer.reset();
  const auto expect_next = [&](std::string_view text) {
    std::string got;
    std::array<char, 64> buffer{};
    while (got.size() < text.size()) {
      const ssize_t size = ::read(reader.get(), buffer.data(), text.size() - got.size());
      if (size <= 0) break;
      got.append(buffer.data(), static_cast<std::size_t>(size));
    }
    EXPECT_EQ(got, text);
  };
  expect_next("old\n");
  shell("echo new >> vms/repo-main/logs/console.log");
  expect_next("new\n");
  shell("cd vms/repo-main/logs && mv console.log console.log.1 && echo rotated > console.log");
  expect_next("rotated\n");
  ASSERT_TRUE(child.signal(SIGTERM));
  EXPECT_EQ(child.wait(Deadline::in(10s))->signal, SIGTERM);
}

TEST_F(RemoteTest, FetchBringsBranchesAndOnlyThose) {
  pretend_to_run();
  commit("new", "x", "by the agent");
  git(workspace(), {"branch", "side"});
  git(workspace(), {"tag", "evil-tag"});
  const Outcome outcome = with_ssh({"fetch", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  const auto refs = nlohmann::json::parse(outcome.out)["refs"];
  ASSERT_EQ(refs.size(), 2U);
  EXPECT_EQ(refs[0]["ref"], "refs/remotes/agent-vm/repo-main/main");
  EXPECT_EQ(refs[0]["commits"], 1);
  EXPECT_EQ(git(repo(), {"log", "-1", "--format=%s", "agent-vm/repo-main/main"}), "by the agent");
  EXPECT_EQ(git(repo(), {"tag"}), "");
  EXPECT_EQ(git(repo(), {"log", "-1", "--format=%s", "main"}), "first") << "the user's own branch";
  EXPECT_FALSE(fs::exists(repo() + "/.git/FETCH_HEAD"));
  EXPECT_THAT(with_ssh({"fetch"}).out, HasSubstr("Nothing new"));
  EXPECT_THAT(entries(vm()), Not(testing::Contains(testing::StartsWith(".fetch-"))));

  // A branch that the agent rewrote replaces the earlier one, which stays reachable.
  const std::string earlier = git(repo(), {"rev-parse", "agent-vm/repo-main/main"});
  git(workspace(), {"commit", "--quiet", "--amend", "-m", "rewritten"});
  EXPECT_THAT(with_ssh({"fetch"}).out, HasSubstr("rewritten: the earlier ones are in its reflog"));
  EXPECT_EQ(git(repo(), {"rev-parse", "agent-vm/repo-main/main@{1}"}), earlier);
  EXPECT_EQ(git(repo(), {"fsck", "--strict", "--no-progress", "--no-dangling"}), "");
}

TEST_F(RemoteTest, FetchWorksForShallowAndForSha256Repositories) {
  git(repo(), {"commit", "--quiet", "--allow-empty", "-m", "second"});
  git(root(), {"clone", "--quiet", "--depth=1", "file://" + repo(), root() + "/shallow"});
  git(root(), {"init", "--quiet", "--object-format=sha256", "-b", "main", root() + "/sha256"});
  shell("cd sha256 && git -c user.name=x -c user.email=x commit -q --allow-empty -m first");
  for (const std::string name : {"shallow", "sha256"}) {
    SCOPED_TRACE(name);
    const std::string source = root() + "/" + name;
    ASSERT_EQ(agent_vm({"create", source}).code, 0);
    const std::string own = state() + "/" + name + "-main";
    const auto directory = StateDirectory::open(state()).value().vm(name + "-main").value();
    const auto config = directory.read_config().value();
    ASSERT_TRUE(directory.write_run({identify(::getpid()).value(), utc_now(), "127.0.0.1",
                                     config.port, config.ssh_port, Accel::kTcg, "key"}));
    shell("sed -i 's#/vms/[^/]*/workspace#/vms/" + name + "-main/workspace#' bin/ssh");
    git(own + "/workspace", {"-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet",
                             "--allow-empty", "-m", "agent"});
    const Outcome outcome = with_ssh({"fetch", name + "-main"});
    EXPECT_EQ(outcome.code, 0) << outcome.error;
    EXPECT_EQ(git(source, {"log", "-1", "--format=%s", "agent-vm/" + name + "-main/main"}),
              "agent");
  }
  EXPECT_EQ(git(root() + "/shallow", {"rev-list", "--count", "HEAD"}), "1") << "still shallow";
}

TEST_F(RemoteTest, S10_NothingOfTheWorkspacesConfigurationRunsOnTheHost) {
  pretend_to_run();
  commit("new", "x", "bait");
  const std::string sentinel = root() + "/sentinel";
  write(root() + "/evil", "#!/bin/sh\necho ran >> " + sentinel + "\nexit 1\n");
  shell("chmod +x evil");
  const std::string evil = root() + "/evil";
  for (const auto* key : {"core.fsmonitor", "core.sshCommand", "core.gitProxy", "diff.external",
                          "uploadpack.packObjectsHook", "core.alternateRefsCommand"}) {
    git(workspace(), {"config", key, evil});
  }
  fs::create_directories(workspace() + "/.git/hooks");
  for (const auto* hook : {"reference-transaction", "post-checkout", "pre-push"}) {
    fs::create_symlink(evil, workspace() + "/.git/hooks/" + hook);
  }
  const Outcome outcome = with_ssh({"fetch"});
  EXPECT_EQ(outcome.code, 0) << outcome.error;
  // Other verbs that look at the VM, from inside of the workspace too.
  for (const auto* verb : {"list", "config", "update"}) {
    plain({"--state-dir", state(), verb}, workspace());
  }
  EXPECT_FALSE(fs::exists(sentinel));
  // The control: any git in the workspace would have run it.
  Command status{.argv = {"git", "-c", "safe.directory=*", "-C", workspace(), "status"}};
  ASSERT_TRUE(run(status));
  EXPECT_TRUE(fs::exists(sentinel));
}

TEST_F(RemoteTest, S10_ObjectsThatGitMustRefuseNeverReachTheRepository) {
  pretend_to_run();
  // A tree with an entry called .git, which a checkout would write over the user's own.
  const std::string blob =
      shell("echo evil | git -c safe.directory='*' -C " + workspace() + " hash-object -w --stdin");
  const std::string inner =
      shell("printf '100644 blob " + blob + "\\tconfig\\n' | git -c safe.directory='*' -C " +
            workspace() + " mktree");
  const std::string tree =
      shell("printf '040000 tree " + inner + "\\t.git\\n' | git -c safe.directory='*' -C " +
            workspace() + " mktree");
  const std::string evil = git(
      workspace(), {"-c", "user.name=x", "-c", "user.email=x", "commit-tree", "-m", "evil", tree});
  git(workspace(), {"update-ref", "refs/heads/evil", evil});
  const std::string before = objects();
  const Outcome outcome = with_ssh({"fetch"});
  EXPECT_EQ(outcome.code, 1) << outcome.out;
  EXPECT_THAT(outcome.error, HasSubstr("contains '.git'"));
  EXPECT_EQ(objects(), before);
  EXPECT_EQ(git(repo(), {"for-each-ref", "refs/remotes"}), "");
  EXPECT_THAT(entries(vm()), Not(testing::Contains(testing::StartsWith(".fetch-"))));
  // The control: an ordinary fetch takes it.
  git(root(), {"init", "--quiet", "ordinary"});
  git(root() + "/ordinary", {"fetch", "--quiet", workspace(), "evil"});
  EXPECT_EQ(git(root() + "/ordinary", {"cat-file", "-t", evil}), "commit");
}

TEST_F(RemoteTest, S10_MoreThanTheCapIsRefusedAndLeavesNothing) {
  pretend_to_run();
  shell("head -c 1000000 /dev/urandom > " + workspace() + "/big");
  git(workspace(), {"add", "."});
  git(workspace(), {"commit", "--quiet", "-m", "big"});
  const std::string before = objects();
  const Outcome outcome = with_ssh({"fetch", "--max-size", "200K"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.error, HasSubstr("it sends more than 200 KiB"));
  EXPECT_EQ(objects(), before);
  EXPECT_THAT(entries(vm()), Not(testing::Contains(testing::StartsWith(".fetch-"))));
  // The control.
  EXPECT_EQ(with_ssh({"fetch"}).code, 0);
}

TEST_F(RemoteTest, S25_NoByteOfTheGuestsReachesTheTerminalByFetch) {
  pretend_to_run();
  write(root() + "/bin/ssh", "#!/bin/sh\nprintf '\\033[2Jcleared\\n' >&2\nexit 255\n");
  const Outcome outcome = with_ssh({"fetch"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.error, HasSubstr("\\x1b[2Jcleared"));
  EXPECT_THAT(outcome.error, Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace agent_vm

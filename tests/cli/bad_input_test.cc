// Every bad input has a clear message and an exit status, and leaves nothing behind.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/text.h"
#include "harness.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class BadInputTest : public CliTest {
 protected:
  void refused(std::vector<std::string> options, int code, const std::string& message) {
    options.insert(options.begin(), "create");
    SCOPED_TRACE(shell_join(options));
    expect_refused(agent_vm(options), code, message);
  }
};

TEST_F(BadInputTest, Repositories) {
  const std::string plain_folder = root() + "/plain";
  fs::create_directory(plain_folder);
  refused({plain_folder}, 2, plain_folder + " is not a git repository");
  refused({root() + "/absent"}, 2, "No such file or directory");
  refused({repo() + "/file"}, 2, "is not a directory");
  refused({repo() + "/.git"}, 2, "inside a .git directory");
  shell("git init --quiet " + root() + "/empty");
  refused({root() + "/empty"}, 2, "has no commit yet");
  shell("git init --quiet --bare " + root() + "/bare");
  refused({root() + "/bare"}, 2, "is a bare repository");
  // The control: the good one is taken.
  EXPECT_EQ(agent_vm({"create", repo()}).code, 0);
}

TEST_F(BadInputTest, ARepositoryOfSomebodyElse) {
  if (!is_root()) GTEST_SKIP() << "only root can make a repository that belongs to another user";
  shell("chown -R 12345 repo");
  refused({repo()}, 2, "belongs to another user");
  shell("git config --global --add safe.directory " + repo());
  EXPECT_EQ(agent_vm({"create", repo()}).code, 0);
}

TEST_F(BadInputTest, BranchNames) {
  for (const std::string& name :
       {std::string("a..b"), std::string("a b"), std::string("-x"), std::string("a.lock"),
        std::string("a~1"), std::string("/a"), std::string("HEAD"), std::string("a\nb"),
        std::string("@{-1}"), std::string(300, 'b')}) {
    refused({"--branch=" + name}, 2, "cannot be the name of a branch");
  }
  refused({"--branch", ""}, 2, "");
}

TEST_F(BadInputTest, VmNames) {
  for (const std::string& name :
       {std::string("a/b"), std::string(".."), std::string("a\nb"), std::string(300, 'n'),
        std::string(".hidden"), std::string("trash"), std::string("-x"), std::string("a b")}) {
    refused({"--name=" + name}, 2, "cannot be the name of a VM");
  }
}

TEST_F(BadInputTest, Ports) {
  refused({"--port", "0"}, 2, "the MCP port '0' is not a number from 1 to 65535");
  refused({"--port", "70000"}, 2, "'70000'");
  refused({"--port", "http"}, 2, "'http'");
  refused({"--ssh-port", "0"}, 2, "the SSH port '0'");
  refused({"--port", "18200", "--ssh-port", "18200"}, 2, "cannot serve both");
  refused({"--host", "192.0.2.1"}, 2, "not an address of this machine");
  refused({"--host", "no host"}, 2, "not an address of this machine");

  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(::bind(listener.get(), raw, size), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ASSERT_EQ(::getsockname(listener.get(), raw, &size), 0);
  const std::string taken = std::to_string(ntohs(address.sin_port));
  refused({"--port", taken}, 2, "the MCP port " + taken + " is taken on 127.0.0.1");

  ASSERT_EQ(agent_vm({"create", "--port", "18201"}).code, 0);
  const Outcome second = agent_vm({"create", "--branch", "b", "--ssh-port", "18201"});
  EXPECT_EQ(second.code, 2);
  EXPECT_THAT(second.error, HasSubstr("the SSH port 18201 is taken by VM 'repo-main'"));
  EXPECT_THAT(entries(state()), ElementsAre("repo-main"));
}

TEST_F(BadInputTest, Resources) {
  refused({"--memory", "1"}, 2, "memory 1 B is too small: a VM needs at least 256 MiB");
  refused({"--memory", "10T"}, 2, "memory 10 TiB is more than this machine has");
  refused({"--memory", "much"}, 2, "--memory: 'much' is not a size");
  refused({"--disk", "1G"}, 2, "disk 1 GiB is not between");
  refused({"--cpus", "0"}, 2, "--cpus: '0'");
  refused({"--cpus", "250"}, 2, "is more than this machine has");
  refused({"--accel", "warp"}, 2, "not one of auto, kvm and tcg");
  refused({"--allow-origin", "https://a/b"}, 2, "not an origin");
}

TEST_F(BadInputTest, TheRepositorysFile) {
  const std::string file = repo() + "/agent-vm.toml";
  write(file, "[vm]\nmemory = [\n");
  refused({}, 2, "agent-vm.toml:2:12: not TOML");
  write(file, "[vm]\n  memroy = \"2G\"\n");
  refused({}, 2, "agent-vm.toml:2:3: unknown key 'vm.memroy'; did you mean 'memory'?");
  write(file, "[vm]\nmemory = \"1K\"\n");
  refused({}, 2, "memory 1 KiB is too small");
  write(file, std::string(70'000, '#'));
  refused({}, 2, "larger than 65536 bytes");
  write(file, "[mcp]\ndefault = \"absent\"\n");
  refused({}, 2, "the default MCP server 'absent' is not configured");
  // Through no link: what it points at may be a secret that an error message would quote.
  fs::remove(file);
  write(root() + "/secret", "password");
  fs::create_symlink(root() + "/secret", file);
  const Outcome outcome = agent_vm({"create"});
  expect_refused(outcome, 2, "it is, or leads through, a link");
  EXPECT_THAT(outcome.error, testing::Not(HasSubstr("password")));
}

TEST_F(BadInputTest, S12_PlacesThatMustNotBeShared) {
  refused({"/"}, 2, "refusing / as a workspace: it is the whole file system");
  refused({home()}, 2, "it is your home directory");
  refused({root()}, 2, "your home directory is in it");
  for (const auto* secret : {".ssh", ".gnupg"}) {
    make_repository(home() + "/" + secret);
    refused({home() + "/" + secret}, 2, "keys live in");
  }
  fs::create_symlink(home(), root() + "/innocent");
  refused({root() + "/innocent"}, 2, "it is your home directory");
  // A repository whose top is the home directory, from a folder below it.
  make_repository(home());
  fs::create_directory(home() + "/below");
  refused({home() + "/below"}, 2, "it is your home directory");
  // The control: a repository below the home directory is fine.
  make_repository(home() + "/project");
  EXPECT_EQ(agent_vm({"create", home() + "/project"}).code, 0);
  // The state directory, and with it every workspace.
  for (const std::string place : {"", "/project-main/workspace"}) {
    const Outcome outcome = agent_vm({"create", state() + place});
    EXPECT_EQ(outcome.code, 2);
    EXPECT_THAT(outcome.error, HasSubstr("in the state directory"));
  }
}

TEST_F(BadInputTest, S28_StateDirectories) {
  fs::create_directory(root() + "/elsewhere");
  fs::create_symlink(root() + "/elsewhere", root() + "/link");
  const auto with = [&](const std::string& path) {
    return plain({"--state-dir", path, "create"}, repo());
  };
  expect_refused(with(root() + "/link"), 2, "it is a symbolic link");
  EXPECT_THAT(entries(root() + "/elsewhere"), IsEmpty());
  shell("mkdir shared && chmod 0777 shared");
  expect_refused(with(root() + "/shared"), 2, "others can write to it");
  write(root() + "/a-file", "");
  expect_refused(with(root() + "/a-file"), 1, "Not a directory");
  if (is_root()) {
    shell("mkdir foreign && chown 12345 foreign");
    expect_refused(with(root() + "/foreign"), 2, "user 12345 owns it, and you are user 0");
  } else {
    expect_refused(with("/usr"), 2, "user 0 owns it");
    shell("mkdir readonly && chmod 0500 readonly");
    expect_refused(with(root() + "/readonly"), 2, "is not writable");
    expect_refused(with(root() + "/readonly/new"), 1, "Permission denied");
  }
  // The control.
  EXPECT_EQ(with(root() + "/elsewhere").code, 0);
}

class SmallDiskTest : public CliTest {
 protected:
  void SetUp() override {
    if (::system("unshare -rm true 2>/dev/null") != 0) {
      GTEST_SKIP() << "needs user namespaces to mount a small file system";
    }
  }
  // Runs a script where the state directory is a file system of 2 MiB. $A is agent-vm with that
  // state directory; the current directory is the repository.
  void on_small_disk(const std::string& script) {
    fs::create_directory(state());
    write(root() + "/inner.sh", "cd " + repo() + "; A='" AGENT_VM_BINARY " --state-dir " + state() +
                                    "'; S=" + state() + "; O=" + root() + "\n" + script);
    const std::string mount = "mount -t tmpfs -o size=2m,mode=0700 small " + state();
    // An ordinary user mounts as root of a namespace, and comes back as itself in another one.
    const auto ids = fmt::format("--map-user={} --map-group={}", ::getuid(), ::getgid());
    shell(is_root() ? "unshare -m sh -euc '" + mount + "; sh inner.sh'"
                    : "unshare -rm sh -euc '" + mount + "; unshare " + ids + " sh inner.sh'");
  }
};

TEST_F(SmallDiskTest, ACreateThatDoesNotFitLeavesNothing) {
  shell("head -c 3000000 /dev/urandom > repo/big && cd repo && git add big && git commit -qm big");
  on_small_disk("$A create >$O/out 2>$O/error; echo $? >$O/code; ls -A $S >$O/left");
  EXPECT_EQ(read(root() + "/code"), "1\n");
  EXPECT_THAT(read(root() + "/error"), HasSubstr("No space left on device"));
  EXPECT_EQ(read(root() + "/left"), "");
  // The control: with room it works.
  EXPECT_EQ(agent_vm({"create"}).code, 0);
}

TEST_F(SmallDiskTest, F9_AnUpdateOnAFullDiskLeavesTheOldConfiguration) {
  on_small_disk(
      "set -e; $A create >$O/out; cp $S/repo-main/config.json $O/before\n"
      "head -c 4000000 /dev/zero >$S/repo-main/filler 2>$O/filled || true\n"
      "set +e; $A update --memory 512M >$O/out 2>$O/error; echo $? >$O/code\n"
      "cp $S/repo-main/config.json $O/after; ls -A $S/repo-main >$O/left\n"
      "rm $S/repo-main/filler; $A update --memory 512M >$O/out; echo $? >$O/control\n");
  EXPECT_EQ(read(root() + "/code"), "1\n");
  EXPECT_THAT(read(root() + "/error"), HasSubstr("No space left on device"));
  EXPECT_EQ(read(root() + "/after"), read(root() + "/before"));
  EXPECT_THAT(read(root() + "/left"), testing::Not(HasSubstr(".tmp")));
  EXPECT_EQ(read(root() + "/control"), "0\n") << "with room it works";
}

TEST_F(BadInputTest, ProgramsThatAreMissing) {
  const Outcome outcome = plain({"--state-dir", state(), "create"}, repo(), {"PATH=/nonexistent"});
  expect_refused(outcome, 7, "git is not installed");
  EXPECT_THAT(outcome.error, HasSubstr("apt-get install git"));
  fs::create_directory(root() + "/bin");
  fs::create_symlink(shell("command -v git"), root() + "/bin/git");
  const Outcome no_keygen =
      plain({"--state-dir", state(), "create"}, repo(), {"PATH=" + root() + "/bin"});
  expect_refused(no_keygen, 7, "ssh-keygen is not installed");
}

TEST_F(BadInputTest, VmsThatDoNotExist) {
  for (const auto* verb : {"config", "update", "destroy"}) {
    EXPECT_EQ(agent_vm({verb, "absent"}).code, 5) << verb;
    EXPECT_EQ(plain({"--state-dir", state(), verb}, "/").code, 5) << verb;
  }
  EXPECT_FALSE(fs::exists(state())) << "made by a verb that only looks";
  ASSERT_EQ(agent_vm({"create"}).code, 0);
  const Outcome outcome = agent_vm({"config", "repo-mian"});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_THAT(outcome.error, HasSubstr("did you mean 'repo-main'?"));
  EXPECT_EQ(agent_vm({"config", "../repo-main"}).code, 5);
}

}  // namespace
}  // namespace agent_vm

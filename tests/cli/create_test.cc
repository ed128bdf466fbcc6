#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"
#include "harness.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class CreateTest : public CliTest {
 protected:
  std::string vm(const std::string& name = "repo-main") { return state() + "/" + name; }
  std::string workspace(const std::string& name = "repo-main") { return vm(name) + "/workspace"; }
  nlohmann::json config(const std::string& name = "repo-main") {
    return nlohmann::json::parse(read(vm(name) + "/config.json"));
  }
  void create(std::vector<std::string> options = {}) {
    options.insert(options.begin(), "create");
    const Outcome outcome = agent_vm(options);
    ASSERT_EQ(outcome.code, 0) << outcome.error;
  }
  mode_t mode(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::lstat(path.c_str(), &info), 0) << path;
    return info.st_mode & 07777U;
  }
  std::set<ino_t> inodes(const std::string& folder) {
    std::set<ino_t> found;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      struct stat info {};
      if (::lstat(entry.path().c_str(), &info) == 0 && S_ISREG(info.st_mode)) {
        found.insert(info.st_ino);
      }
    }
    return found;
  }
  std::vector<ino_t> common(const std::string& a, const std::string& b) {
    const auto left = inodes(a);
    const auto right = inodes(b);
    std::vector<ino_t> both;
    std::ranges::set_intersection(left, right, std::back_inserter(both));
    return both;
  }
};

TEST_F(CreateTest, MakesAllOfAVmWithTheRightModes) {
  git(repo(), {"remote", "add", "origin", "https://user:secret@example.org/repo.git?token=x"});
  git(repo(), {"remote", "add", "upstream", "ssh://git:pw@example.org/up.git"});
  const Outcome outcome = agent_vm({"create"});
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_THAT(outcome.out, HasSubstr("MCP Endpoint: http://127.0.0.1:"));
  EXPECT_THAT(entries(vm()),
              ElementsAre("ca", "config.json", "logs", "mcp_token", "ssh", "workspace"));
  EXPECT_EQ(mode(vm()), 0700U);
  EXPECT_EQ(mode(vm() + "/config.json"), 0600U);
  EXPECT_EQ(mode(vm() + "/mcp_token"), 0600U);
  EXPECT_EQ(mode(vm() + "/ca"), 0700U);
  EXPECT_EQ(mode(vm() + "/ca/authority.pem"), 0600U);
  EXPECT_EQ(mode(vm() + "/ssh/id_ed25519"), 0600U);
  EXPECT_EQ(mode(vm() + "/ssh/id_ed25519.pub"), 0644U);
  EXPECT_EQ(mode(vm() + "/ssh/host_ed25519"), 0600U);
  EXPECT_EQ(read(vm() + "/mcp_token").size(), 64U);
  EXPECT_THAT(read(vm() + "/ssh/known_hosts"), testing::StartsWith("repo-main ssh-ed25519 "));
  EXPECT_EQ(shell("ssh-keygen -y -P '' -f " + vm() + "/ssh/id_ed25519 | cut -d' ' -f1"),
            "ssh-ed25519");
  const auto config = this->config();
  EXPECT_EQ(config["branch"], "main");
  EXPECT_EQ(config["origin_repo"], "https://example.org/repo.git");
  EXPECT_EQ(config["upstream_repo"], "ssh://git@example.org/up.git");
  EXPECT_EQ(config["source_repo"], repo());
  EXPECT_EQ(config["workspace_path"], workspace());
  // No credential reached the guest's side either.
  const std::string git_config = read(workspace() + "/.git/config");
  EXPECT_THAT(git_config, Not(HasSubstr("secret")));
  EXPECT_THAT(git_config, Not(HasSubstr("token")));
  EXPECT_EQ(git(workspace(), {"remote", "get-url", "origin"}), "https://example.org/repo.git");
  EXPECT_EQ(git(workspace(), {"status", "--porcelain"}), "");
  EXPECT_EQ(git(workspace(), {"log", "--format=%s"}), "first");
  EXPECT_EQ(git(workspace(), {"config", "user.email"}), "tester@example.org");
}

TEST_F(CreateTest, ASecondCreateSaysTheKnownWordsAndChangesNothing) {
  create();
  const std::string before = read(vm() + "/config.json");
  const Outcome second = agent_vm({"create"});
  EXPECT_EQ(second.code, 2);
  EXPECT_THAT(second.error, HasSubstr("error: VM configuration already exists\n"));
  EXPECT_EQ(read(vm() + "/config.json"), before);
  EXPECT_THAT(entries(state()), ElementsAre("repo-main"));
}

TEST_F(CreateTest, BranchesOldNewRemoteAndDetached) {
  git(repo(), {"branch", "old"});
  git(repo(), {"commit", "--quiet", "--allow-empty", "-m", "second"});
  create({"--branch", "old"});
  EXPECT_EQ(git(workspace("repo-old"), {"log", "-1", "--format=%s"}), "first");
  create({"--branch", "new/idea"});
  EXPECT_EQ(git(workspace("repo-new-idea"), {"log", "-1", "--format=%s"}), "second");
  EXPECT_EQ(git(workspace("repo-new-idea"), {"symbolic-ref", "HEAD"}), "refs/heads/new/idea");
  EXPECT_EQ(git(repo(), {"branch", "--list", "new/idea"}), "") << "made in the source";
  git(repo(), {"update-ref", "refs/remotes/origin/theirs", "HEAD~1"});
  create({"--branch", "theirs"});
  EXPECT_EQ(git(workspace("repo-theirs"), {"log", "-1", "--format=%s"}), "first");
  git(repo(), {"checkout", "--quiet", "--detach", "HEAD~1"});
  create();
  const std::string commit = git(repo(), {"rev-parse", "HEAD"});
  const std::string branch = "detached-" + commit.substr(0, 12);
  EXPECT_EQ(git(workspace("repo-" + branch), {"rev-parse", branch}), commit);
  // Left out, VM is the one of the current branch, here of the detached commit.
  EXPECT_THAT(agent_vm({"config"}).out, HasSubstr(branch));
}

TEST_F(CreateTest, WorktreesTagsAndTheOtherLocalBranches) {
  git(repo(), {"tag", "v1"});
  git(repo(), {"branch", "private"});
  git(repo(), {"worktree", "add", "--quiet", "-b", "topic", root() + "/tree"});
  const Outcome outcome = plain({"--state-dir", state(), "create"}, root() + "/tree");
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_EQ(git(workspace("tree-topic"), {"tag"}), "v1");
  EXPECT_EQ(git(workspace("tree-topic"), {"branch", "--format=%(refname:short)"}), "topic");
}

TEST_F(CreateTest, S8b_TheCloneSharesNothingWithTheSource) {
  create();
  EXPECT_THAT(common(repo(), workspace()), IsEmpty());
  EXPECT_FALSE(fs::exists(workspace() + "/.git/objects/info/alternates"));
  // The control: git's own local clone does share.
  git(root(), {"clone", "--quiet", "--local", repo(), root() + "/ordinary"});
  EXPECT_THAT(common(repo(), root() + "/ordinary"), Not(IsEmpty()));
  // The guest overwrites every object of its clone.
  shell("find " + workspace() +
        "/.git/objects -type f -exec sh -c "
        "'chmod u+w \"$1\"; echo garbage > \"$1\"' sh {} \\;");
  git(repo(), {"fsck", "--strict"});
}

TEST_F(CreateTest, S8b_ASourceWithAlternatesIsDissociated) {
  git(root(), {"clone", "--quiet", "--shared", repo(), root() + "/borrower"});
  const Outcome outcome = plain({"--state-dir", state(), "create"}, root() + "/borrower");
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  fs::rename(repo(), root() + "/gone");
  EXPECT_EQ(git(workspace("borrower-main"), {"fsck", "--strict", "--no-progress"}), "");
}

// What a hostile repository, or an owner's global configuration that it can refer to, could run on
// the host while it is cloned.
TEST_F(CreateTest, NoHookFilterOrTemplateRunsOnTheHost) {
  const std::string sentinel = root() + "/sentinel";
  const std::string program = root() + "/evil";
  write(program, "#!/bin/sh\necho ran >> " + sentinel + "\ncat\n");
  shell("chmod +x " + program);
  write(repo() + "/.gitattributes", "* filter=evil\n");
  git(repo(), {"add", "."});
  git(repo(), {"commit", "--quiet", "-m", "attributes"});
  for (const auto* hook : {"post-checkout", "reference-transaction", "pre-receive"}) {
    fs::create_symlink(program, repo() + "/.git/hooks/" + hook);
  }
  git(repo(), {"config", "core.fsmonitor", program});
  git(repo(), {"config", "uploadpack.packObjectsHook", program});
  fs::create_directories(root() + "/template/hooks");
  fs::create_symlink(program, root() + "/template/hooks/post-checkout");
  write(home() + "/.gitconfig", "[filter \"evil\"]\n\tsmudge = " + program +
                                    "\n[init]\n\ttemplateDir = " + root() +
                                    "/template\n[core]\n\tfsmonitor = " + program + "\n");
  fs::remove(sentinel);
  create();
  EXPECT_FALSE(fs::exists(sentinel)) << read(sentinel);
  EXPECT_THAT(entries(workspace() + "/.git/hooks"), IsEmpty());
  // The control: git's own clone runs them.
  git(root(), {"clone", "--quiet", repo(), root() + "/ordinary"});
  EXPECT_TRUE(fs::exists(sentinel));
}

// Looking at a commit that is missing makes git fetch it from where the repository says, by a
// program that the repository names.
TEST_F(CreateTest, ARepositoryCannotMakeGitFetchByProgramsOfItsOwn) {
  const std::string sentinel = root() + "/sentinel";
  git(repo(), {"config", "core.repositoryFormatVersion", "1"});
  git(repo(), {"config", "extensions.partialClone", "evil"});
  git(repo(), {"config", "remote.evil.promisor", "true"});
  git(repo(), {"config", "remote.evil.url", "ext::touch " + sentinel});
  git(repo(), {"config", "protocol.ext.allow", "always"});
  write(repo() + "/.git/refs/heads/main", std::string(40, 'a') + "\n");
  EXPECT_NE(agent_vm({"create"}).code, 0);
  EXPECT_NE(agent_vm({"trust"}).code, 0);
  EXPECT_FALSE(fs::exists(sentinel));
  // The control: any git that looks does.
  static_cast<void>(run({.argv = {"git", "-C", repo(), "rev-parse", "HEAD^{commit}"}}));
  EXPECT_TRUE(fs::exists(sentinel));
}

TEST_F(CreateTest, SubmodulesAreNotFollowed) {
  make_repository(root() + "/inner");
  git(repo(), {"-c", "protocol.file.allow=always", "submodule", "--quiet", "add", root() + "/inner",
               "inner"});
  git(repo(), {"commit", "--quiet", "-m", "submodule"});
  create();
  EXPECT_THAT(entries(workspace() + "/inner"), IsEmpty());
  EXPECT_FALSE(fs::exists(workspace() + "/.git/modules/inner"));
}

TEST_F(CreateTest, GitVariablesOfTheCallerDoNotMislead) {
  make_repository(root() + "/other");
  const Outcome outcome = plain({"--state-dir", state(), "create"}, repo(),
                                {"GIT_DIR=" + root() + "/other/.git",
                                 "GIT_WORK_TREE=" + root() + "/other", "GIT_INDEX_FILE=/nowhere"});
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_EQ(config()["source_repo"], repo());
}

TEST_F(CreateTest, M16_TheWorkspaceBelongsToDevOfTheGuest) {
  create();
  struct stat info {};
  for (const auto& entry : fs::recursive_directory_iterator(workspace())) {
    ASSERT_EQ(::lstat(entry.path().c_str(), &info), 0);
    if (is_root()) {
      EXPECT_NE(info.st_uid, 0U) << entry.path();
    } else {
      EXPECT_EQ(info.st_uid, ::geteuid()) << entry.path();
    }
  }
}

TEST_F(CreateTest, PortsAreTheFirstFreeOnesAndNeverShared) {
  create();
  create({"--branch", "b"});
  EXPECT_NE(config()["port"], config("repo-b")["port"]);
  EXPECT_NE(config()["ssh_port"], config("repo-b")["ssh_port"]);
  EXPECT_GE(config()["port"], 8000);
  EXPECT_GE(config()["ssh_port"], 2222);
  create({"--branch", "c", "--port", "18123", "--ssh-port", "18124", "--host", "localhost"});
  EXPECT_EQ(config("repo-c")["port"], 18123);
  EXPECT_EQ(config("repo-c")["ssh_port"], 18124);
  EXPECT_EQ(config("repo-c")["host"], "localhost");
  EXPECT_EQ(config("repo-c")["bind_address"], "127.0.0.1");
}

TEST_F(CreateTest, AnOptionTakesNoArgumentThatIsNotIts) {
  const Outcome outcome =
      plain({"--state-dir", state(), "create", "--allow-origin", "http://localhost:1",
             "--allow-origin", "http://localhost:2", repo()},
            "/");
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_EQ(config()["mcp"]["allowed_origins"].size(), 2U);
}

TEST_F(CreateTest, TheDefaultPlaceIsTheOneOfXdg) {
  EXPECT_EQ(plain({"create"}, repo()).code, 0);
  EXPECT_THAT(entries(home() + "/.local/share/agent-vms"), ElementsAre("repo-main"));
  EXPECT_EQ(plain({"create"}, repo(), {"XDG_DATA_HOME=" + root() + "/data"}).code, 0);
  EXPECT_THAT(entries(root() + "/data/agent-vms"), ElementsAre("repo-main"));
}

TEST_F(CreateTest, EachVerbOfNetTakesTheVmAsAnOption) {
  create();
  for (const std::string verb : {"show", "log", "learn", "off"})
    EXPECT_EQ(agent_vm({"net", verb, "--vm", "repo-main"}).code, 0) << verb;
  EXPECT_EQ(agent_vm({"net", "show", "repo-main"}).code, 0);
  EXPECT_EQ(agent_vm({"net", "show", "--vm", "other"}).code, 5);
  EXPECT_EQ(agent_vm({"net", "show", "repo-main", "--vm", "other"}).code, 2);
  EXPECT_EQ(config()["network"]["mode"], "off");
}

TEST_F(CreateTest, ListShowsThem) {
  EXPECT_THAT(agent_vm({"list"}).out, HasSubstr("No VMs"));
  create();
  EXPECT_THAT(agent_vm({"list"}).out, HasSubstr("repo-main  Stopped  main"));
  const auto json = nlohmann::json::parse(agent_vm({"list", "--json"}).out);
  ASSERT_EQ(json.size(), 1U);
  EXPECT_EQ(json[0]["status"], "Stopped");
  // F11: one that is damaged does not hide the others, and is not lost.
  create({"--branch", "b"});
  write(vm() + "/config.json", "{\"schema\": 1, \"vm_na");
  const Outcome damaged = agent_vm({"list"});
  EXPECT_EQ(damaged.code, 0);
  EXPECT_THAT(damaged.out, HasSubstr("repo-main  Damaged"));
  EXPECT_THAT(damaged.out, HasSubstr("repo-b"));
  EXPECT_THAT(entries(vm()), Contains(HasSubstr("config.json.corrupt-")));
}

}  // namespace
}  // namespace agent_vm

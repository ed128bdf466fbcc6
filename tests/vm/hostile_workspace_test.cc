// A guest that wants out through its workspace (S8-S11).
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/text.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class HostileWorkspaceTest : public RunningVmTest {
 protected:
  static std::string host(const std::string& name) { return vm().workspace() + "/" + name; }
};

std::set<ino_t> inodes_below(const std::string& path) {
  std::set<ino_t> found;
  struct stat info {};
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (::lstat(entry.path().c_str(), &info) == 0) found.insert(info.st_ino);
  }
  return found;
}

TEST_F(HostileWorkspaceTest, S8_LinksLeadNowhereOnTheHost) {
  const std::string outside = vm().root() + "/outside";
  fs::create_directories(outside);
  write_file(outside + "/canary", "intact");
  ASSERT_EQ(::chmod(outside.c_str(), 0777), 0);
  ASSERT_EQ(::chmod((outside + "/canary").c_str(), 0666), 0);
  const std::string script = fmt::format(
      "cd /workspace && rm -rf links && mkdir links && cd links\n"
      "ln -s {0}/canary absolute; ln -s {0} folder\n"
      "ln -s ../../../../outside/canary relative; ln -s ../../../outside/canary relative3\n"
      "for f in absolute folder/canary relative relative3 ../../outside/canary "
      "../../../outside/canary ../../../../outside/canary; do\n"
      "  cat $f 2>/dev/null; echo overwritten > $f 2>/dev/null; ln $f stolen 2>/dev/null\n"
      "done; true",
      outside);
  const Ran tried = vm().guest_root(script);
  EXPECT_THAT(tried.out, Not(HasSubstr("intact"))) << tried.describe();
  EXPECT_EQ(read_text(outside + "/canary"), "intact");
  EXPECT_EQ(std::distance(fs::directory_iterator(outside), {}), 1);
  // The control: on the host, that very link does lead to the canary.
  EXPECT_EQ(read_text(host("links/absolute")), "intact");
}

TEST_F(HostileWorkspaceTest, S8b_TheCloneSharesNoInodeWithItsSource) {
  const auto source = inodes_below(vm().repository());
  const auto clone = inodes_below(vm().workspace());
  std::vector<ino_t> common;
  std::ranges::set_intersection(source, clone, std::back_inserter(common));
  EXPECT_THAT(common, IsEmpty());
  EXPECT_FALSE(fs::exists(host(".git/objects/info/alternates")));
  // The control: git's own way of cloning does share them.
  const std::string linked = vm().root() + "/linked";
  git(vm().root(), {"clone", "-q", "--local", vm().repository(), linked});
  const auto other = inodes_below(linked);
  std::vector<ino_t> shared;
  std::ranges::set_intersection(source, other, std::back_inserter(shared));
  EXPECT_THAT(shared, Not(IsEmpty()));
}

TEST_F(HostileWorkspaceTest, S8b_TheSourceSurvivesAGuestThatOverwritesEveryObject) {
  TestVm& target = vm();
  // Of a copy, because other tests want the workspace's repository.
  target.guest_says("rm -rf /workspace/copy && cp -a /workspace/.git /workspace/copy");
  const auto before = git(target.repository(), {"rev-parse", "HEAD"});
  const std::string spoiled = target.root_says(
      "cd /workspace/.git && tar -cf /var/tmp/objects.tar objects && n=0\n"
      "for f in $(find objects -type f); do chmod u+w $f; echo garbage > $f; n=$((n+1)); done\n"
      "echo $n");
  EXPECT_GT(parse_unsigned(spoiled).value_or(0), 1U);
  const Ran clone_check = target.guest("cd /workspace && git fsck 2>&1");
  EXPECT_FALSE(clone_check.ok()) << "the control: the clone is broken";
  EXPECT_EQ(git(target.repository(), {"rev-parse", "HEAD"}), before);
  git(target.repository(), {"fsck", "--full", "--strict"});
  target.root_says(
      "cd /workspace/.git && rm -rf objects ../copy && tar -xpf /var/tmp/objects.tar && "
      "chown -R dev:dev objects");
  target.guest_says("cd /workspace && git fsck");
}

TEST_F(HostileWorkspaceTest, S9_AFolderThatBecomesALinkLeadsNoVerbOutside) {
  const std::string outside = vm().root() + "/flip-outside";
  fs::create_directories(outside);
  write_file(outside + "/canary", "intact");
  // A file of 64 MiB outside, which must never be counted, read or touched.
  fs::resize_file(outside + "/canary", 64U << 20U);
  vm().guest_says(fmt::format(
      "cat > /tmp/flip.py <<'END'\n"
      "import ctypes, os\n"
      "os.chdir('/workspace')\n"
      "os.makedirs('flip', exist_ok=True)\n"
      "if not os.path.islink('link'): os.symlink('{0}', 'link')\n"
      "libc = ctypes.CDLL(None, use_errno=True)\n"
      "n = 0\n"
      "while not os.path.exists('/tmp/flip.stop'):\n"
      "    if libc.renameat2(-100, b'flip', -100, b'link', 2): raise OSError(ctypes.get_errno())\n"
      "    n += 1\n"
      "print(n)\n"
      "END\n"
      "rm -f /tmp/flip.stop; setsid python3 /tmp/flip.py > /tmp/flip.count 2>&1 < /dev/null &",
      outside));
  for (int round = 0; round < 3; ++round) {
    const Ran status = vm().agent({"status", vm().name(), "--json"});
    EXPECT_TRUE(status.ok()) << status.describe();
    const auto value = nlohmann::json::parse(status.out, nullptr, false);
    ASSERT_TRUE(value.is_object());
    EXPECT_LT(value["workspace"].value("bytes", std::uint64_t{0}), 60U << 20U);
    EXPECT_TRUE(vm().agent({"list"}).ok());
    EXPECT_TRUE(vm().agent({"config", vm().name()}).ok());
  }
  const std::string flips = vm().guest_says(
      "touch /tmp/flip.stop; while pgrep -f flip.py > /dev/null; do sleep 0.1; done; "
      "cat /tmp/flip.count");
  EXPECT_GT(parse_unsigned(flips).value_or(0), 500U) << flips;
  EXPECT_EQ(fs::file_size(outside + "/canary"), 64U << 20U);
  EXPECT_EQ(std::distance(fs::directory_iterator(outside), {}), 1);
  vm().guest_says("cd /workspace && rm -rf flip link");
}

TEST_F(HostileWorkspaceTest, S10_NoVerbRunsWhatTheWorkspacesGitIsToldToRun) {
  const std::string sentinel = vm().root() + "/sentinel";
  const std::string bait = fmt::format(
      "cd /workspace\n"
      "git config core.fsmonitor 'touch {0}-fsmonitor; true'\n"
      "git config core.sshCommand 'touch {0}-ssh; false'\n"
      "git config core.pager 'touch {0}-pager; cat'\n"
      "git config core.hooksPath hooks-of-guest\n"
      "git config filter.bait.clean 'touch {0}-clean; cat'\n"
      "git config filter.bait.smudge 'touch {0}-smudge; cat'\n"
      "git config uploadpack.packObjectsHook 'touch {0}-pack; git pack-objects'\n"
      "git config diff.external 'touch {0}-diff'\n"
      "mkdir -p hooks-of-guest\n"
      "for hook in post-checkout reference-transaction post-index-change pre-auto-gc; do\n"
      "  printf '#!/bin/sh\\ntouch {0}-hook\\n' > hooks-of-guest/$hook\n"
      "  chmod +x hooks-of-guest/$hook\n"
      "done\n"
      "echo '* filter=bait' > .git/info/attributes\n"
      "mkdir -p buried/objects buried/refs/heads; echo 'ref: refs/heads/main' > buried/HEAD\n"
      "printf '[core]\\n\\trepositoryformatversion = 0\\n\\tbare = false\\n\\tworktree = ..\\n"
      "\\tfsmonitor = touch {0}-buried\\n' > buried/config\n"
      "echo bait >> README.md",
      sentinel);
  vm().guest_says(bait);
  const auto sprung = [&] {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(vm().root())) {
      if (entry.path().filename().string().starts_with("sentinel-"))
        found.push_back(entry.path().filename());
    }
    return found;
  };
  using Verbs = std::vector<std::vector<std::string>>;
  const auto try_in = [&](const std::string& directory, const Verbs& verbs) {
    for (const auto& verb : verbs) {
      const Ran ran = vm().agent(verb, {.directory = directory});
      EXPECT_FALSE(ran.timed_out) << verb[0];
      EXPECT_THAT(sprung(), IsEmpty()) << join(verb, " ") << " in " << directory;
    }
  };
  try_in(vm().repository(), {{"status", vm().name()},
                             {"list"},
                             {"config", vm().name()},
                             {"logs", vm().name()},
                             {"fetch", vm().name()},
                             {"exec", vm().name(), "--", "true"}});
  // Where the current repository is the guest's, and where it is one buried in the guest's.
  try_in(vm().workspace(), {{"status"}, {"list", "--json"}});
  try_in(vm().workspace() + "/buried", {{"config"}, {"list"}});
  EXPECT_TRUE(vm().stop().ok());
  EXPECT_THAT(sprung(), IsEmpty()) << "stop";
  EXPECT_TRUE(vm().start());
  EXPECT_THAT(sprung(), IsEmpty()) << "start";
  // The control: git, run by a user who trusts the folder, falls for it.
  git(vm().workspace(), {"status"});
  EXPECT_THAT(sprung(), Not(IsEmpty()));
  abandon();  // whose destroy is one more verb
}

TEST_F(HostileWorkspaceTest, S11_PrivilegesAndDevicesStayInTheGuest) {
  const std::string made = vm().root_says(
      "cd /workspace && rm -rf priv && mkdir priv && chmod 755 priv && cd priv\n"
      "cp /usr/bin/id id && chown root:root id && chmod 6755 id && echo suid\n"
      "cp /usr/bin/id cap && python3 -c 'import os, struct; os.setxattr(\"cap\", "
      "\"security.capability\", struct.pack(\"<5I\", 0x02000001, 0xffffffff, 0, 0xffffffff, 0))' "
      "2>/dev/null && echo cap\n"
      "mknod disk b 8 0 2>/dev/null && echo disk; mknod mem c 1 1 2>/dev/null && echo mem\n"
      "mknod null c 1 3 2>/dev/null && echo null; true");
  EXPECT_THAT(made, HasSubstr("suid"));
  struct stat info {};
  ASSERT_EQ(::stat(host("priv/id").c_str(), &info), 0);
  EXPECT_NE(info.st_uid, 0U);
  EXPECT_NE(info.st_gid, 0U);
  // Run on the host it gains, at most, an id that owns nothing.
  const Ran ran = run_program({host("priv/id"), "-u"});
  if (ran.ok()) {
    EXPECT_THAT(std::string(trim(ran.out)),
                testing::AnyOf(std::to_string(info.st_uid), std::to_string(::getuid())));
    if (::getuid() != 0) {
      EXPECT_NE(trim(ran.out), "0");
    }
  }
  for (const auto* device : {"disk", "mem", "null"}) {
    if (::lstat(host(fmt::format("priv/{}", device)).c_str(), &info) != 0) continue;
    EXPECT_FALSE(S_ISBLK(info.st_mode) || S_ISCHR(info.st_mode)) << device;
  }
  // Capabilities of a file count only in the namespace whose root they name.
  std::array<unsigned char, 24> value{};
  const ssize_t got =
      ::getxattr(host("priv/cap").c_str(), "security.capability", value.data(), value.size());
  if (got > 0 && ::getuid() != 0) {
    const Ran capable =
        run_program({"sh", "-c", host("priv/cap") + " -u; exec " + host("priv/cap") + " -u"});
    EXPECT_NE(trim(capable.out), "0") << capable.describe();
  }
  if (got == 24) {
    std::uint32_t owner = 0;
    std::memcpy(&owner, value.data() + 20, sizeof owner);
    EXPECT_NE(owner, 0U) << "capabilities that the host's root namespace would honour";
  } else {
    EXPECT_LE(got, 0) << "capabilities that the host's root namespace would honour";
  }
  // In the guest the share is mounted so that none of it means anything either.
  EXPECT_NE(vm().guest_says("/workspace/priv/id -u"), "0");
  vm().root_says("cp /usr/bin/id /usr/local/bin/suid-id && chmod 4755 /usr/local/bin/suid-id");
  EXPECT_EQ(vm().guest_says("/usr/local/bin/suid-id -u"), "0");  // the control
  vm().root_says("rm -rf /usr/local/bin/suid-id /workspace/priv");
}

}  // namespace
}  // namespace agent_vm::test

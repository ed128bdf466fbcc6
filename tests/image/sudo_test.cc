// vm.sudo: `dev` becomes root in the guest when the owner's own configuration says so, and only
// then. A suite of the slow ones, because the image has one package more.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "os/run.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class SudoTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/sudo_test_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
    fs::create_directories(folder_ + "/config/agent-vm");
    configure("");
    shell(
        "git init -q -b main repo && cd repo && git -c user.name=a -c user.email=a@localhost "
        "commit -q --allow-empty -m First");
  }
  void TearDown() override {
    static_cast<void>(agent_vm({"destroy", "--purge", "--yes", "repo-main"}));
    fs::remove_all(folder_);
  }

  void configure(const std::string& more) const {
    const std::string file = folder_ + "/config/agent-vm/config.toml";
    std::ofstream(file) << "[vm]\nmemory = \"1G\"\n" << more;
    fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
  }
  void shell(const std::string& script) const {
    const auto ran = run_checked({.argv = {"sh", "-euc", script}, .working_directory = folder_});
    ASSERT_TRUE(ran) << ran.error().message();
  }
  CommandOutput agent_vm(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {AGENT_VM_BINARY, "--state-dir", folder_ + "/state"});
    auto ran = run({.argv = std::move(arguments),
                    .extra_environment = {"XDG_CONFIG_HOME=" + folder_ + "/config"},
                    .working_directory = folder_ + "/repo"});
    EXPECT_TRUE(ran) << ran.error().message();
    return ran ? std::move(*ran) : CommandOutput();
  }
  void start() {
    const auto started = agent_vm({"start", "repo-main"});
    ASSERT_TRUE(started.ok()) << started.error;
  }

  std::string folder_;
};

TEST_F(SudoTest, S29_DevIsRootOnlyWhenItsOwnerSaysSo) {
  ASSERT_TRUE(agent_vm({"image", "build"}).ok());
  ASSERT_TRUE(agent_vm({"create"}).ok());
  start();
  const auto without = agent_vm({"exec", "repo-main", "--", "sudo", "-n", "id", "-u"});
  EXPECT_FALSE(without.ok()) << without.out;
  ASSERT_TRUE(agent_vm({"stop", "repo-main"}).ok());

  configure("sudo = true\n");
  ASSERT_TRUE(agent_vm({"update", "repo-main"}).ok());
  ASSERT_TRUE(agent_vm({"reset", "--yes", "repo-main"}).ok());
  // Whoever has no such image is told how to get one.
  const auto built = agent_vm({"image", "build", "--package", "sudo"});
  ASSERT_TRUE(built.ok()) << built.error;
  start();
  const auto with = agent_vm({"exec", "repo-main", "--", "sudo", "-n", "id", "-u"});
  EXPECT_EQ(with.out, "0\n") << with.error;
  // The share's files stay nobody's all the same.
  const auto made =
      agent_vm({"exec", "repo-main", "--", "sudo", "-n", "touch", "/workspace/of-guest-root"});
  EXPECT_TRUE(made.ok()) << made.error;
  struct stat info {};
  ASSERT_EQ(::lstat((folder_ + "/state/repo-main/workspace/of-guest-root").c_str(), &info), 0);
  EXPECT_NE(info.st_uid, 0U);
  EXPECT_NE(info.st_uid, ::getuid());
}

}  // namespace
}  // namespace agent_vm

// vm.sudo: `dev` becomes root in the guest when the owner's own configuration says so, and only
// then. A suite of the slow ones, because the image has one package more.
#include <sys/stat.h>
#include <unistd.h>

#include "owned_vm.h"

namespace agent_vm {
namespace {

class SudoTest : public OwnedVmTest {};

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

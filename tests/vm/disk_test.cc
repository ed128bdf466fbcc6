// The file system under a VM's disk is full (F10).
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

class DiskTest : public VmTest {
 protected:
  // A file system of its own for what is below `folder`, gone with this process at the latest.
  static void mount_small(const std::string& folder) {
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    fs::create_directories(folder);
    ASSERT_EQ(::mount("small", folder.c_str(), "tmpfs", 0, "size=512m,mode=0700"), 0);
  }
  static void fill(const std::string& file) {
    run_program({"dd", "if=/dev/zero", "of=" + file, "bs=64k"});
    struct statvfs left {};
    ASSERT_EQ(::statvfs(file.c_str(), &left), 0);
    ASSERT_EQ(left.f_bavail, 0U);
  }
};

TEST_F(DiskTest, F10_AFullFileSystemPausesTheVmUntilThereIsRoom) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can mount a small file system";
  TestVm vm("full");
  mount_small(vm.state());
  if (HasFatalFailure()) return;
  ASSERT_TRUE(vm.create_and_start());
  // The control: with room, such a write is done at once.
  vm.guest_says("dd if=/dev/zero of=/var/tmp/first bs=1M count=16 conv=fsync 2>&1");

  // The guest is told to write by a file that goes away: a command over SSH might not end before
  // the VM stands still.
  const std::string hold = vm.workspace() + "/hold";
  std::ofstream(hold).close();
  vm.guest_says(
      "setsid sh -c 'while [ -e /workspace/hold ]; do sleep 0.2; done; "
      "dd if=/dev/zero of=/var/tmp/second bs=1M count=64 conv=fsync; "
      "echo $? > /tmp/written' > /dev/null 2>&1 < /dev/null &");
  const std::string filler = vm.state() + "/filler";
  fill(filler);
  if (HasFatalFailure()) return;
  ASSERT_TRUE(fs::remove(hold));
  const auto is = [&](const char* what) {
    return eventually(seconds(60), [&] { return vm.status().value("status", "") == what; });
  };
  EXPECT_TRUE(is("Paused"));
  const Ran status = vm.agent({"status", vm.name()});
  EXPECT_EQ(status.code, 3) << status.describe();
  EXPECT_THAT(status.out, HasSubstr("VM Status: Paused\n"));
  EXPECT_THAT(status.out, HasSubstr("No space left on device"));

  ASSERT_TRUE(fs::remove(filler));
  EXPECT_TRUE(is("Running"));
  // The guest never saw an error, and what it wrote is there.
  EXPECT_EQ(vm.guest_says("while ! [ -s /tmp/written ]; do sleep 0.2; done; cat /tmp/written; "
                          "stat -c %s /var/tmp/second"),
            "0\n67108864");
  EXPECT_EQ(vm.root_says("dmesg | grep -ci 'i/o error' || true"), "0");
}

}  // namespace
}  // namespace agent_vm::test

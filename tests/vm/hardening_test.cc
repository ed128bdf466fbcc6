// The guest's kernel against its own programs: the wall inside the virtual machine (S29). What each
// of the locks does, and that the probes succeed without it, is BootTest's to show.
#include "base/text.h"
#include "support/kernel_probe.h"
#include "support/mcp.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class HardeningTest : public RunningVmTest {
 protected:
  static std::string command() { return fmt::format("python3 -c {}", shell_quote(kKernelProbe)); }
};

TEST_F(HardeningTest, S29_DevReachesNothingOfTheKernel) {
  EXPECT_EQ(vm().guest_says(command()),
            "module EPERM\nkexec EPERM\nmemory EACCES\nbpf EPERM\nuserns EPERM");
  // The control: with that one setting taken back, that one probe succeeds.
  vm().root_says(
      "/usr/sbin/sysctl -w user.max_user_namespaces=100 kernel.unprivileged_userns_clone=1");
  EXPECT_EQ(vm().guest_says(command()),
            "module EPERM\nkexec EPERM\nmemory EACCES\nbpf EPERM\nuserns done");
  vm().root_says(
      "/usr/sbin/sysctl -w user.max_user_namespaces=0 kernel.unprivileged_userns_clone=0");
}

// bpf is the control: root, who may, is asked by the same probe.
TEST_F(HardeningTest, S29_NotEvenRootChangesTheKernel) {
  for (const bool cold : {true, false}) {
    EXPECT_TRUE(vm().stop({"--force"}).ok());
    std::vector<std::string> start{"start", vm().name()};
    if (cold) start.emplace_back("--cold");
    const Ran started = vm().agent(start);
    ASSERT_TRUE(started.ok()) << started.describe();
    EXPECT_EQ(vm().root_says(command()),
              "module EPERM\nkexec EPERM\nmemory EPERM\nbpf done\nuserns ENOSPC")
        << (cold ? "booted" : "resumed");
    EXPECT_THAT(vm().root_says("cat /sys/kernel/security/lockdown"), HasSubstr("[integrity]"));
    EXPECT_EQ(vm().root_says("cat /proc/sys/kernel/modules_disabled"), "1");
    for (const auto* lock :
         {"echo 0 > /proc/sys/kernel/modules_disabled", "echo none > /sys/kernel/security/lockdown",
          "echo 0 > /proc/sys/kernel/kexec_load_disabled", "modprobe dummy",
          "rmmod dummy 2>/dev/null || rmmod loop"})
      EXPECT_FALSE(vm().guest_root(lock).ok()) << lock;
  }
}

TEST_F(HardeningTest, S29_TheServiceReachesNothingOfTheKernel) {
  McpClient client(vm().port(), vm().token());
  const std::string answer = client.call("exec", {{"command", command() + "; id -un"}});
  EXPECT_THAT(answer, HasSubstr("module EPERM\\nkexec EPERM\\nmemory ENOENT\\nbpf EPERM\\n"
                                "userns EPERM\\ndev"));
}

// What somebody with root expects of a guest still works: its drivers came before the lock.
TEST_F(HardeningTest, S29_WhatWasLoadedBeforeTheLockWorks) {
  EXPECT_EQ(
      vm().root_says("ip link add name br7 type bridge && ip link add v1 type veth peer name v2 "
                     "&& ip link set v1 master br7 && ip link del v1 && ip link del br7 "
                     "&& ip tuntap add mode tun t7 && ip link del t7 && echo made"),
      "made");
  // The control: a driver that was not loaded.
  const Ran dummy = vm().guest_root("ip link add d7 type dummy");
  EXPECT_FALSE(dummy.ok());
  EXPECT_THAT(dummy.error, HasSubstr("Unknown device type"));
  // The journal has no word of a driver that some part of the system missed.
  EXPECT_THAT(vm().root_says("journalctl -k --no-pager -q"), Not(HasSubstr("module verification")));
}

}  // namespace
}  // namespace agent_vm::test

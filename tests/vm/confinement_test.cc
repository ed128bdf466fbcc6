// What a taken-over QEMU or virtiofsd could do: looked at from the host, and probed from inside the
// very jails that run (S2-S5, S7, S22).
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/text.h"
#include "plan/id_map.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

class ConfinementTest : public RunningVmTest {
 protected:
  void SetUp() override {
    RunningVmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    qemu_ = vm().child("qemu");
    virtiofsd_ = vm().child("virtiofsd");
    relay_ = vm().child("relay");
    ASSERT_GT(qemu_, 0);
    ASSERT_GT(virtiofsd_, 0);
    ASSERT_GT(relay_, 0);
  }

  // A shell in the namespaces of a process, with all capabilities there: more than the process has.
  // The gateway's network belongs to the VM's user namespace, where the supervisor is, and not to a
  // jail's, so the way into it leads through there.
  static Ran in_jail_of(pid_t pid, const std::string& script, bool in_gateway = false) {
    const std::string target = std::to_string(pid);
    if (in_gateway) {
      // Under the relay's id: the packet filter lets no other one reach the guest.
      return run_program({"nsenter", "-U", "-t", std::to_string(vm().supervisor()->pid), "nsenter",
                          "-n", "-t", target, "setpriv", "--reuid", std::to_string(kRelayId),
                          "--clear-groups", "/bin/sh", "-c", script},
                         {.patience = std::chrono::seconds(30)});
    }
    return run_program({"nsenter", "--preserve-credentials", "-U", "-m", "-i", "-u", "-n", "-t",
                        target, "/bin/sh", "-c", script},
                       {.patience = std::chrono::seconds(30)});
  }

  static std::string status_of(pid_t pid, const std::string& field) {
    return status_field(fmt::format("/proc/{}/status", pid), field);
  }

  pid_t qemu_ = 0;
  pid_t virtiofsd_ = 0;
  pid_t relay_ = 0;
};

TEST_F(ConfinementTest, S2_TheGuestSeesTheseDevicesAndNoOthers) {
  const std::string seen = vm().guest_says(
      "cd /sys/bus/pci/devices; for d in *; do "
      "echo $d $(cat $d/vendor) $(cat $d/device) $(cat $d/class); done");
  EXPECT_THAT(split_lines(seen),
              UnorderedElementsAre("0000:00:00.0 0x8086 0x29c0 0x060000",  // host bridge
                                   "0000:00:02.0 0x1af4 0x1001 0x010000",  // virtio-blk
                                   "0000:00:03.0 0x1af4 0x1000 0x020000",  // virtio-net
                                   "0000:00:04.0 0x1af4 0x1003 0x078000",  // virtio-serial
                                   "0000:00:05.0 0x1af4 0x1005 0x00ff00",  // virtio-rng
                                   "0000:00:06.0 0x1b36 0x000c 0x060400",  // the share's root port
                                   "0000:00:07.0 0x1b36 0x000c 0x060400",  // the disk's root port
                                   "0000:00:1f.0 0x8086 0x2918 0x060100",  // LPC, part of q35
                                   "0000:01:00.0 0x1af4 0x105a 0x018000",  // virtiofs
                                   "0000:02:00.0 0x1af4 0x1042 0x010000"));  // the VM's disk
  // One serial port: the others that the driver could drive are not there.
  EXPECT_EQ(vm().root_says("grep -c 'uart:16550' /proc/tty/driver/serial"), "1");
}

TEST_F(ConfinementTest, S3_EveryThreadOfQemuIsUnderSeccompWithoutCapabilities) {
  const auto all = threads(qemu_);
  EXPECT_GT(all.size(), 2U);
  for (const pid_t thread : all) {
    const std::string path = fmt::format("/proc/{}/task/{}/status", qemu_, thread);
    EXPECT_EQ(status_field(path, "Seccomp"), "2") << command_line(thread);
    for (const auto* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"})
      EXPECT_EQ(status_field(path, set), "0000000000000000") << set;
    EXPECT_EQ(status_field(path, "NoNewPrivs"), "1");
    EXPECT_EQ(status_field(path, "Groups"), "");
  }
  // The control: the supervisor, which started it, has fewer filters and more capabilities.
  const pid_t supervisor = vm().supervisor()->pid;
  const auto filters = [](pid_t pid) {
    return parse_unsigned(status_of(pid, "Seccomp_filters")).value_or(0);
  };
  EXPECT_GT(filters(qemu_), filters(supervisor));
  EXPECT_NE(status_of(supervisor, "CapEff"), "0000000000000000");
}

TEST_F(ConfinementTest, S3_QemuRunsAsAnIdThatOwnsNothing) {
  // Real, effective, saved and file system id, all the same, and neither root nor whoever tests.
  const auto ids = split(status_of(qemu_, "Uid"), '\t');
  ASSERT_EQ(ids.size(), 4U);
  for (const auto& id : ids) {
    EXPECT_EQ(id, ids[0]);
    EXPECT_NE(id, "0");
    EXPECT_NE(id, std::to_string(::getuid()));
  }
  EXPECT_NE(status_of(virtiofsd_, "Uid"), status_of(qemu_, "Uid"));
  EXPECT_NE(status_of(relay_, "Uid"), status_of(qemu_, "Uid"));
}

TEST_F(ConfinementTest, S4_S5_NamespacesAreTheJailsOwn) {
  const pid_t host = ::getpid();
  const pid_t supervisor = vm().supervisor()->pid;
  for (const pid_t pid : {qemu_, virtiofsd_, relay_}) {
    for (const auto* kind : {"user", "mnt", "net", "pid", "ipc", "uts"}) {
      const auto name = namespace_of(pid, kind);
      EXPECT_NE(name, "") << kind << " of " << command_line(pid);
      EXPECT_NE(name, namespace_of(host, kind)) << kind << " of " << command_line(pid);
    }
  }
  // Nobody shares a network with QEMU: not the relay in the gateway, not virtiofsd.
  EXPECT_NE(namespace_of(qemu_, "net"), namespace_of(relay_, "net"));
  EXPECT_NE(namespace_of(qemu_, "net"), namespace_of(virtiofsd_, "net"));
  EXPECT_EQ(namespace_of(qemu_, "pid"), namespace_of(relay_, "pid"));
  // The control: the comparison can tell equal from different.
  EXPECT_EQ(namespace_of(supervisor, "net"), namespace_of(host, "net"));
}

TEST_F(ConfinementTest, S4_AProbeInQemusJailSeesNoFileOfTheUser) {
  const std::string canary = vm().root() + "/canary";
  write_file(canary, "sing\n");
  const std::string probe = fmt::format(
      "for f in {} /proc/1/root{} /root/.ssh /home /etc/passwd {}/config.json; do "
      "cat $f 2>/dev/null; ls $f 2>/dev/null; done; ls /",
      canary, canary, vm().directory());
  const Ran inside = in_jail_of(qemu_, probe);
  EXPECT_TRUE(inside.ok()) << inside.describe();
  EXPECT_THAT(split_lines(inside.out), ElementsAre("bin", "dev", "etc", "initramfs", "kernel",
                                                   "lib", "lib64", "memory", "usr"))
      << inside.describe();
  const Ran outside = run_program({"sh", "-c", probe});
  EXPECT_THAT(outside.out, HasSubstr("sing")) << outside.describe();  // the control
  EXPECT_THAT(outside.out, HasSubstr(vm().name()));
}

TEST_F(ConfinementTest, S4_AProbeInQemusJailCanWriteNowhere) {
  const std::string probe =
      "for d in / /usr /dev /etc /tmp /kernel; do touch $d/x 2>/dev/null && echo wrote $d; done; "
      "true";
  EXPECT_EQ(in_jail_of(qemu_, probe).out, "");
  EXPECT_THAT(in_jail_of(qemu_, "echo reached").out, "reached\n");  // the control
}

TEST_F(ConfinementTest, S5_AProbeInQemusJailReachesNobody) {
  const auto loopback = listen_on("127.0.0.1");
  ASSERT_TRUE(loopback);
  std::vector<std::string> targets{fmt::format("127.0.0.1:{}", loopback->port), "10.66.0.1:22",
                                   "10.66.0.15:22", "10.66.0.15:8000"};
  const auto probe = [&] {
    std::string script;
    for (const auto& target : targets) {
      script += fmt::format(
          "perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(PeerAddr=>\"{}\",Timeout=>2) ? "
          "\"{} reached\\n\" : \"\"';",
          target, target);
    }
    return script + "echo probed; cat /proc/net/dev 2>/dev/null | wc -l";
  }();
  const Ran inside = in_jail_of(qemu_, probe);
  EXPECT_THAT(inside.out, HasSubstr("probed")) << inside.describe();
  EXPECT_THAT(inside.out, Not(HasSubstr("reached"))) << inside.describe();
  EXPECT_FALSE(loopback->was_reached());
  // The controls: the host reaches its loopback, the relay's jail reaches the guest.
  EXPECT_THAT(run_program({"sh", "-c", probe}).out, HasSubstr(targets[0] + " reached"));
  const Ran relay = in_jail_of(relay_, probe, true);
  EXPECT_THAT(relay.out, HasSubstr("10.66.0.15:22 reached")) << relay.describe();
}

TEST_F(ConfinementTest, S5_TheRelaysJailReachesTheGuestAndNothingElse) {
  const auto loopback = listen_on("127.0.0.1");
  const auto everywhere = listen_on("0.0.0.0");
  ASSERT_TRUE(loopback && everywhere);
  std::string script;
  for (const auto& address : host_addresses()) {
    if (address.find(':') != std::string::npos) continue;
    for (const std::uint16_t port : {loopback->port, everywhere->port}) {
      script += fmt::format(
          "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr=>\"{}:{}\",Timeout=>2)';",
          address, port);
    }
  }
  const Ran inside = in_jail_of(relay_, script + "echo probed", true);
  EXPECT_EQ(inside.out, "probed\n") << inside.describe();
  EXPECT_FALSE(loopback->was_reached());
  EXPECT_FALSE(everywhere->was_reached());
  run_program({"sh", "-c", script});  // the control
  EXPECT_TRUE(loopback->was_reached());
  EXPECT_TRUE(everywhere->was_reached());
}

TEST_F(ConfinementTest, S7_NoMonitorSocketCanBeFound) {
  // The control socket, the MCP endpoint's and that of the kept SSH connection, and nothing else,
  // are to be found by both ways of looking.
  EXPECT_THAT(socket_files(vm().state()),
              ElementsAre(vm().directory() + "/control.sock", vm().directory() + "/mcp.sock",
                          vm().directory() + "/ssh.sock"));
  int listening = 0;
  for (const auto& line : unix_sockets_with("control.sock")) {
    if (line.find(vm().name()) != std::string::npos ||
        line.find("/proc/self/fd") != std::string::npos)
      ++listening;
  }
  EXPECT_GE(listening, 1);
  // QEMU's network namespace has no listener of any kind, named or abstract. Flags of a listening
  // socket: 00010000.
  for (const pid_t pid : {qemu_, virtiofsd_}) {
    const Ran sockets = run_program({"grep", " 00010000 ", fmt::format("/proc/{}/net/unix", pid)});
    EXPECT_EQ(sockets.out, "");
    const Ran tcp = run_program({"cat", fmt::format("/proc/{}/net/tcp", pid)});
    EXPECT_LE(split_lines(tcp.out).size(), 1U) << tcp.describe();
  }
  EXPECT_TRUE(run_program({"grep", " 00010000 ", "/proc/self/net/unix"}).ok());  // the control
}

TEST_F(ConfinementTest, S8_VirtiofsdsRootIsTheWorkspace) {
  // Whatever path a hostile guest makes it resolve, there is nothing else it could find. Of its two
  // processes, the first only waits for the end of the one that serves.
  const auto children = descendants(virtiofsd_);
  ASSERT_EQ(children.size(), 1U);
  const pid_t server = children[0].pid;
  struct stat root {};
  struct stat workspace {};
  ASSERT_EQ(::stat(fmt::format("/proc/{}/root/", server).c_str(), &root), 0);
  ASSERT_EQ(::stat(vm().workspace().c_str(), &workspace), 0);
  EXPECT_EQ(root.st_ino, workspace.st_ino);
  EXPECT_EQ(root.st_dev, workspace.st_dev);
  // What it may still do: nothing but what files of other owners take. One thread, which QEMU's
  // libraries start before main and which sleeps, is older than the filter and keeps what virtiofsd
  // was started with; see SECURITY.md.
  int older = 0;
  for (const pid_t thread : threads(server)) {
    const std::string path = fmt::format("/proc/{}/task/{}/status", server, thread);
    EXPECT_EQ(status_field(path, "NoNewPrivs"), "1");
    const auto effective = std::stoull(status_field(path, "CapEff"), nullptr, 16);
    EXPECT_NE(effective, 0U);  // the control: these are its capabilities
    std::vector<int> never{CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE, CAP_SYS_CHROOT,
                           CAP_SYS_MODULE};
    if (status_field(path, "Seccomp") == "2") {
      never.push_back(CAP_SYS_ADMIN);
      never.push_back(CAP_SETPCAP);
    } else {
      ++older;
    }
    for (const int capability : never)
      EXPECT_EQ(effective & (1ULL << static_cast<unsigned>(capability)), 0U) << capability;
  }
  EXPECT_LE(older, 1);
  EXPECT_GE(threads(server).size(), 3U);
}

TEST_F(ConfinementTest, S22_PortsListenOnLoopbackOnly) {
  for (const std::uint16_t port : {vm().port(), vm().ssh_port()})
    EXPECT_THAT(tcp_listeners(port), ElementsAre(fmt::format("127.0.0.1:{}", port)));
  // The control: a wildcard would be seen.
  const auto wildcard = listen_on("0.0.0.0");
  ASSERT_TRUE(wildcard);
  EXPECT_THAT(tcp_listeners(wildcard->port),
              ElementsAre(fmt::format("0.0.0.0:{}", wildcard->port)));
}

}  // namespace
}  // namespace agent_vm::test

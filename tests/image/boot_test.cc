// The image boots by itself, under emulation, to a system in which nothing failed, which has no
// identity, and in which `dev` can do little. The image is the user's own; it is built when
// missing.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "os/async.h"
#include "os/files.h"
#include "os/run.h"
#include "os/spawn.h"
#include "qmp/guest_agent.h"
#include "support/kernel_probe.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using ::testing::HasSubstr;

// An emulated guest on a busy machine.
constexpr auto kBootTimeout = 180s;
constexpr auto kCommandTimeout = 60s;
// Some of the sysctls cannot be taken back: a test applies them.
constexpr const char* kKernelArguments =
    "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet panic=-1 "
    "systemd.mask=systemd-sysctl.service";

class BootTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string path = testing::TempDir() + "/boot_test_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
    const auto built = run({.argv = {AGENT_VM_BINARY, "image", "build", "--json"}});
    ASSERT_TRUE(built && built->ok()) << (built ? built->error : built.error().message());
    const std::string image = nlohmann::json::parse(built->out)["directory"];
    ASSERT_TRUE(run_checked({.argv = {"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b",
                                      image + "/root.img", folder_ + "/disk.qcow2", "8G"}}));
    std::array<int, 2> pair{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    Fd theirs(pair[1]);
    // The devices that a VM has, and no network.
    SpawnSpec spec{.argv = {"qemu-system-x86_64",
                            "-accel",
                            "tcg,thread=multi",
                            "-cpu",
                            "max",
                            "-smp",
                            "2",
                            "-machine",
                            "q35,sata=off,smbus=off,i8042=off,hpet=off,usb=off,vmport=off",
                            "-m",
                            "1024",
                            "-nodefaults",
                            "-no-user-config",
                            "-display",
                            "none",
                            "-no-reboot",
                            "-serial",
                            "file:" + folder_ + "/console.log",
                            "-kernel",
                            image + "/vmlinuz",
                            "-initrd",
                            image + "/initrd.img",
                            "-append",
                            kKernelArguments,
                            "-drive",
                            "if=none,id=disk,format=qcow2,file=" + folder_ + "/disk.qcow2",
                            "-device",
                            "virtio-blk-pci,drive=disk",
                            "-device",
                            "virtio-rng-pci",
                            "-netdev",
                            "user,id=net,restrict=on",
                            "-device",
                            "virtio-net-pci,netdev=net,romfile=",
                            "-device",
                            "virtio-serial-pci",
                            "-chardev",
                            "socket,id=agent,fd=3",
                            "-device",
                            "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"},
                   .environment = host_environment(),
                   .descriptors = {{theirs.get(), 3}, {2, 2}}};
    auto qemu = spawn(spec);
    ASSERT_TRUE(qemu) << qemu.error().message();
    qemu_ = std::move(*qemu);
    io_ = std::make_unique<asio::io_context>();
    // A bell that nobody can ring: this machine has no port for it.
    std::array<int, 2> bell{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, bell.data()), 0);
    ::close(bell[1]);
    agent_ = std::make_unique<GuestAgent>(*io_, Fd(pair[0]), Fd(bell[0]));
    const auto begin = Deadline::Clock::now();
    const auto up = guest("systemctl is-system-running --wait", kBootTimeout);
    GTEST_LOG_(INFO) << "booted in " << (Deadline::Clock::now() - begin) / 1ms << " ms";
    EXPECT_EQ(up, "running\n") << console();
  }
  static void TearDownTestSuite() {
    agent_.reset();
    if (qemu_) {
      static_cast<void>(qemu_.signal(SIGKILL));
      static_cast<void>(qemu_.wait());
    }
    fs::remove_all(folder_);
  }

  // What a shell command prints in the guest, as root.
  static std::string guest(const std::string& command,
                           std::chrono::milliseconds timeout = kCommandTimeout) {
    std::string text = "no answer";
    asio::co_spawn(
        *io_,
        [&]() -> Task<void> {
          std::vector<std::string> arguments{"-c", command + " 2>&1"};
          const auto deadline = Deadline::in(timeout);
          auto result = co_await agent_->run("/bin/sh", std::move(arguments), "", deadline);
          text = result ? result->out : result.error().message();
        },
        asio::detached);
    io_->restart();
    io_->run();
    return text;
  }
  static std::string as_dev(const std::string& command) {
    return guest("setpriv --reuid=dev --regid=dev --clear-groups sh -c " + shell_quote(command));
  }
  static void apply_sysctls() { guest("/usr/lib/systemd/systemd-sysctl"); }
  static std::string probe_as(const std::string& user) {
    return guest(fmt::format("setpriv --reuid={0} --regid={0} --clear-groups python3 -c {1}", user,
                             shell_quote(test::kKernelProbe)));
  }
  static std::string console() {
    return read_file(folder_ + "/console.log", 1U << 20U).value_or("no console");
  }

  static inline std::string folder_;
  static inline Child qemu_;
  static inline std::unique_ptr<asio::io_context> io_;
  static inline std::unique_ptr<GuestAgent> agent_;
};

TEST_F(BootTest, NoUnitFailed) {
  EXPECT_EQ(guest("systemctl --failed --no-legend"), "");
  // Control: one that fails is seen.
  guest("systemd-run --unit=broken /bin/false; while ! systemctl is-failed -q broken; do :; done");
  EXPECT_THAT(guest("systemctl --failed --no-legend"), HasSubstr("broken"));
  guest("systemctl reset-failed");
}

TEST_F(BootTest, HasNoIdentity) {
  EXPECT_EQ(guest("find /etc/ssh -name 'ssh_host_*'"), "");
  EXPECT_EQ(guest("cat /etc/hostname"), "localhost\n");
  EXPECT_EQ(guest("awk -F: '$2 !~ /^[*!]/' /etc/shadow"), "");  // nobody has a password
  EXPECT_EQ(guest("find /var/lib/systemd -name random-seed"), "");
  EXPECT_EQ(guest("ip -brief -4 address show dev eth0 | grep -c /"), "0\n");
}

TEST_F(BootTest, StartsOnlyWhatItShould) {
  EXPECT_EQ(guest("systemctl is-active ssh agent-mcp dbus systemd-logind"),
            "inactive\ninactive\ninactive\ninactive\n");
  EXPECT_EQ(guest("systemctl is-active qemu-guest-agent dbus.socket"), "active\nactive\n");
  EXPECT_EQ(guest("systemctl list-timers --all --no-legend"), "");
  EXPECT_EQ(guest("pgrep -c getty"), "0\n");
  // sshd accepts its configuration, with a key like the one that the identity step brings.
  EXPECT_EQ(guest("ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key && mkdir -p "
                  "/run/sshd && sshd -t; rm -f /etc/ssh/ssh_host_*"),
            "");
}

TEST_F(BootTest, HoldsTheTools) {
  for (const char* tool : {"git", "curl", "python3", "node", "npm", "rg", "less", "ip", "ps",
                           "/usr/lib/agent-vm/agent-mcp", "/usr/lib/agent-vm/agent-vm-identity"}) {
    EXPECT_THAT(as_dev(fmt::format("command -v {}", tool)), HasSubstr(tool));
  }
  EXPECT_EQ(as_dev("python3 -c 'import ssl, sqlite3, venv; print(40 + 2)'"), "42\n");
  EXPECT_EQ(as_dev("node -e 'console.log(40 + 2)'"), "42\n");
  EXPECT_EQ(as_dev("touch /workspace/x /home/dev/x && stat -c %U /workspace /home/dev"),
            "dev\ndev\n");
  // Compiled code is taken as current, because it names the time that its source has.
  EXPECT_NE(guest("python3 -v -c 'import json' 2>&1 | grep -c 'pyc matches .*/json/'"), "0\n");
}

TEST_F(BootTest, TheFileSystemFillsTheDisk) {
  EXPECT_GT(parse_unsigned(trim(guest("df --output=size -B1 / | tail -n 1"))).value_or(0),
            7ULL << 30);
}

// Each lock, before and after: what fails in a VM is what these locks forbid (HardeningTest).
TEST_F(BootTest, S29_WithoutTheLocksRootReachesTheKernel) {
  guest(
      "sysctl -w kernel.unprivileged_bpf_disabled=0 user.max_user_namespaces=100 "
      "kernel.unprivileged_userns_clone=1");
  EXPECT_EQ(probe_as("root"), "module done\nkexec done\nmemory done\nbpf done\nuserns done\n");
  EXPECT_EQ(probe_as("dev"), "module EPERM\nkexec EPERM\nmemory EACCES\nbpf done\nuserns done\n");
  EXPECT_EQ(guest("rmmod dummy"), "");
  apply_sysctls();
  EXPECT_EQ(probe_as("root"), "module done\nkexec EPERM\nmemory done\nbpf done\nuserns ENOSPC\n");
  EXPECT_EQ(probe_as("dev"), "module EPERM\nkexec EPERM\nmemory EACCES\nbpf EPERM\nuserns EPERM\n");
  EXPECT_EQ(guest("rmmod dummy"), "");
  guest("echo integrity > /sys/kernel/security/lockdown");
  EXPECT_EQ(probe_as("root"), "module done\nkexec EPERM\nmemory EPERM\nbpf done\nuserns ENOSPC\n");
  EXPECT_EQ(guest("rmmod dummy"), "");
  EXPECT_THAT(guest("/usr/lib/agent-vm/agent-vm-identity --settle"), HasSubstr("\"ok\":true"));
  EXPECT_EQ(probe_as("root"), "module EPERM\nkexec EPERM\nmemory EPERM\nbpf done\nuserns ENOSPC\n");
  guest("{ echo 0 > /proc/sys/kernel/modules_disabled; }");
  EXPECT_EQ(guest("cat /proc/sys/kernel/modules_disabled"), "1\n");
}

TEST_F(BootTest, S29_DevCannotReachForTheKernel) {
  apply_sysctls();
  EXPECT_THAT(as_dev("unshare -U true"), HasSubstr("Operation not permitted"));
  EXPECT_THAT(as_dev("cat /proc/kallsyms | grep -c -v '^0000000000000000'"), HasSubstr("0"));
  EXPECT_THAT(as_dev("dmesg"), HasSubstr("Operation not permitted"));
  EXPECT_EQ(guest("sysctl -n kernel.unprivileged_bpf_disabled"), "1\n");
  EXPECT_EQ(guest("sysctl -n kernel.kexec_load_disabled"), "1\n");
  // No program of the image makes anybody root.
  EXPECT_EQ(guest("find / -xdev -type f -perm /4000"), "");
  // Control: with the setting taken back, `dev` has a user namespace.
  guest("sysctl -w user.max_user_namespaces=100 kernel.unprivileged_userns_clone=1");
  EXPECT_EQ(as_dev("unshare -U true && echo made"), "made\n");
  guest("sysctl -w user.max_user_namespaces=0 kernel.unprivileged_userns_clone=0");
}

}  // namespace
}  // namespace agent_vm

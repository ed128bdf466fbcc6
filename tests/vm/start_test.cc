// Starting: what --debug shows (M3), what --timeout bounds (M4), what stands in the way (F17, F3),
// what is not trusted (S27), and what is not promised without KVM (S1).
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "os/files.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr int kFailed = 1;
constexpr int kNotFound = 5;
constexpr int kTimeout = 6;
constexpr int kMissing = 7;

class StartTest : public VmTest {};

TEST_F(StartTest, M4_AShortTimeoutEndsTheStart) {
  TestVm vm("timeout");
  ASSERT_TRUE(vm.create());
  alone();  // it measures a second
  Background start(vm.agent_argv({"start", "--cold", vm.name()}, {"--timeout", "1"}), vm.root(),
                   vm.agent_options());
  Footprint seen;
  eventually(seconds(2), [&] {
    // However fast this machine is: a QEMU that does not run gets no guest up.
    if (const pid_t qemu = vm.child("qemu"); qemu > 0) ::kill(qemu, SIGSTOP);
    const auto supervisor = vm.supervisor();
    if (supervisor && is_running(*supervisor)) seen = Footprint::of(supervisor->pid);
    // The last look before the end has them all: more than the supervisor and its init.
    return seen.processes.size() > 4;
  });
  const Ran ran = start.wait();
  EXPECT_EQ(ran.code, kTimeout) << ran.describe();
  EXPECT_LT(ran.seconds, 3.0) << ran.describe();  // 1 s, and 2 s for everything around it
  EXPECT_THAT(ran.error, AnyOf(HasSubstr("did not boot in time"), HasSubstr("did not answer")))
      << ran.describe();
  EXPECT_THAT(ran.error, HasSubstr("--timeout"));
  EXPECT_THAT(seen.processes, Not(IsEmpty()));
  // The supervisor outlives its answer by a moment.
  EXPECT_TRUE(eventually(seconds(10), [&] { return vm.leftovers(seen).empty(); }))
      << join(vm.leftovers(seen), "\n");
  const Ran status = vm.agent({"status", vm.name()});
  EXPECT_EQ(status.code, 3) << status.describe();
}

TEST_F(StartTest, M4_EveryVerbTakesATimeoutAndRefusesNonsense) {
  TestVm vm("timeout-words");
  ASSERT_TRUE(vm.create());
  for (const auto* verb : {"start", "status", "stop", "list"}) {
    for (const auto* timeout : {"0", "-1", "soon", "1e3"}) {
      std::vector<std::string> argv{vm.agent_argv({}, {"--timeout", timeout, verb})};
      const Ran ran = run_program(argv, vm.agent_options());
      EXPECT_EQ(ran.code, 2) << verb << " " << timeout << "\n" << ran.describe();
      EXPECT_THAT(ran.error, HasSubstr("--timeout"));
    }
  }
}

TEST_F(StartTest, F17_APortThatSomebodyTookIsNamed) {
  TestVm vm("port");
  ASSERT_TRUE(vm.create());
  for (const std::uint16_t port : {vm.port(), vm.ssh_port()}) {
    const auto taken = listen_on("127.0.0.1", port);
    ASSERT_TRUE(taken);
    const Ran ran = vm.agent({"start", vm.name()});
    EXPECT_EQ(ran.code, kFailed) << ran.describe();
    EXPECT_THAT(ran.error, HasSubstr(std::to_string(port)));
    EXPECT_THAT(vm.agent({"status", vm.name()}).out, HasSubstr("VM Status: "));
    EXPECT_FALSE(fs::exists(vm.directory() + "/run.json"));
  }
  // That nothing but the port was in the way is what every other test that starts a VM shows.
}

TEST_F(StartTest, F3_AReusedPidIsNotTheSupervisor) {
  TestVm vm("pid");
  ASSERT_TRUE(vm.create());
  // A record of a supervisor that died, whose pid an innocent process has now.
  Background innocent({"sleep", "1000"}, vm.root());
  const auto identity = identify(innocent.pid());
  ASSERT_TRUE(identity);
  const nlohmann::json record = {{"schema", 1},
                                 {"supervisor",
                                  {{"pid", identity->pid},
                                   {"start_time", identity->start_time - 1},
                                   {"boot_id", identity->boot_id}}},
                                 {"started_at", "2026-01-31T12:00:00Z"},
                                 {"bind_address", "127.0.0.1"},
                                 {"port", vm.port()},
                                 {"ssh_port", vm.ssh_port()},
                                 {"accel", "tcg"},
                                 {"image_key", "any"}};
  const std::string path = vm.directory() + "/run.json";
  const auto plant = [&](const nlohmann::json& what) {
    write_file(path, what.dump(2));
    ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  };

  plant(record);
  const Ran status = vm.agent({"status", vm.name()});
  EXPECT_EQ(status.code, 3) << status.describe();
  EXPECT_THAT(status.out, HasSubstr("supervisor was killed"));
  for (const auto& verb :
       {std::vector<std::string>{"stop", vm.name()}, {"stop", "--force", vm.name()}}) {
    plant(record);
    EXPECT_TRUE(vm.agent(verb).ok());
    EXPECT_TRUE(is_running(*identity));
    EXPECT_FALSE(fs::exists(path));
  }

  // The control: with the right start time that very process is taken for the supervisor.
  auto exact = record;
  exact["supervisor"]["start_time"] = identity->start_time;
  plant(exact);
  EXPECT_TRUE(vm.agent({"stop", "--force", vm.name()}).ok());
  EXPECT_FALSE(is_running(*identity) && innocent.wait(seconds(5)).timed_out);
  fs::remove(path);
}

// Turns over one bit in the middle of a file.
void flip(const std::string& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const auto middle = static_cast<std::streamoff>(fs::file_size(path) / 2);
  char byte = 0;
  file.seekg(middle).get(byte);
  file.seekp(middle).put(static_cast<char>(byte ^ 1));
  file.close();
  ASSERT_TRUE(file) << path;
}

TEST_F(StartTest, S27_AFlippedBitInTheImageIsRefused) {
  TestVm vm("flipped");
  ASSERT_TRUE(vm.create());
  for (const std::string file : {"root.img", "vmlinuz", "initrd.img"}) {
    const std::string path = image_cache().directory + "/" + file;
    flip(path);
    const Ran refused = vm.agent({"start", vm.name()});
    flip(path);
    EXPECT_EQ(refused.code, kFailed) << refused.describe();
    EXPECT_THAT(refused.error, AllOf(HasSubstr("is damaged: " + file + " is not what was made"),
                                     HasSubstr("agent-vm image build")));
    EXPECT_FALSE(fs::exists(vm.directory() + "/run.json"));
    EXPECT_FALSE(fs::exists(vm.directory() + "/disk.img"));
  }
  // The control: that one bit was all.
  const Ran planned = vm.agent({"start", vm.name(), "--dry-run"});
  EXPECT_TRUE(planned.ok()) << planned.describe();
}

// A command behind a mount of its own. An ordinary user is root of a namespace for the mount, and
// itself again in another one, in which there are no subordinate ids to be had.
std::vector<std::string> behind(const std::string& mount, const std::vector<std::string>& argv) {
  std::vector<std::string> all{"unshare", "--mount", "sh", "-euc", mount + "; exec \"$@\"", "sh"};
  if (::geteuid() != 0) {
    const auto self = fmt::format("unshare --map-user={} --map-group={}", ::getuid(), ::getgid());
    all = {
        "unshare", "--map-root-user", "--mount", "sh", "-euc", mount + "; exec " + self + " \"$@\"",
        "sh"};
  }
  all.insert(all.end(), argv.begin(), argv.end());
  return all;
}

TEST_F(StartTest, M2_WhatTheMachineLacksIsNamedWithWhatMendsIt) {
  TestVm vm("lacks");
  ASSERT_TRUE(vm.create());
  auto elsewhere = vm.agent_options();
  elsewhere.environment.push_back("XDG_CACHE_HOME=" + vm.root());
  const Ran no_image = run_program(vm.agent_argv({"start", vm.name()}), elsewhere);
  EXPECT_EQ(no_image.code, kNotFound) << no_image.describe();
  EXPECT_THAT(no_image.error,
              AllOf(HasSubstr("there is no image for VM"), HasSubstr("agent-vm image build")));
  struct Case {
    std::string mount, message, hint;
  };
  const std::string nothing = "mount --bind /dev/null ";
  std::vector<Case> cases{{nothing + "/usr/bin/qemu-system-x86_64",
                           "QEMU (qemu-system-x86_64) is not",
                           "sudo apt-get install qemu-system-x86"}};
  for (const auto* virtiofsd : {"/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"}) {
    if (fs::exists(virtiofsd))
      cases.push_back({nothing + virtiofsd, "virtiofsd is not installed", "sudo apt-get install "});
  }
  if (::geteuid() == 0) {
    cases.push_back(
        {"mount -t tmpfs none /dev/net", "cannot open /dev/net/tun", "sudo modprobe tun"});
    cases.push_back(
        {"mount -t tmpfs none /dev/net; mknod /dev/net/tun c 10 200; "
         "chown 1:1 /dev/net/tun; chmod 0600 /dev/net/tun",
         "cannot open /dev/net/tun: Permission denied", "sudo chmod 0666 /dev/net/tun"});
  } else {
    cases.push_back({nothing + "/etc/subuid", "subordinate ids in /etc/subuid", "--add-subuids "});
    cases.push_back({nothing + "/etc/subgid", "subordinate ids in /etc/subgid", "--add-subgids "});
  }
  for (const auto& [mount, message, hint] : cases) {
    const Ran refused =
        run_program(behind(mount, vm.agent_argv({"start", vm.name()})), vm.agent_options());
    EXPECT_EQ(refused.code, kMissing) << mount << "\n" << refused.describe();
    EXPECT_THAT(refused.error, AllOf(HasSubstr(message), HasSubstr(hint))) << mount;
    EXPECT_FALSE(fs::exists(vm.directory() + "/run.json")) << mount;
  }
  // The control: with all of it, there is a plan.
  EXPECT_TRUE(vm.agent({"start", vm.name(), "--dry-run"}).ok());
}

// agent-vm where KVM does not work: here as it is, or with /dev/null in its place, which only root
// can put there. Empty: neither.
std::vector<std::string> without_kvm(const TestVm& vm, const std::vector<std::string>& arguments) {
  auto argv = vm.agent_argv(arguments);
  const Ran doctor = vm.agent({"doctor", "--json"});
  const auto report = nlohmann::json::parse(doctor.out, nullptr, false);
  for (const auto& check : report["checks"]) {
    if (check["id"] == "kvm" && check["level"] != "ok") return argv;
  }
  if (::geteuid() != 0) return {};
  argv.insert(argv.begin(), {"unshare", "--mount", "sh", "-euc",
                             "mount --bind /dev/null /dev/kvm; exec \"$@\"", "sh"});
  return argv;
}

TEST_F(StartTest, S1_WithoutKvmItIsRefusedOrNamed) {
  TestVm vm("kvm", {.create_arguments = {"--accel", "kvm"}});
  ASSERT_TRUE(vm.create());
  const auto start = without_kvm(vm, {"start", vm.name()});
  if (start.empty()) GTEST_SKIP() << "KVM works, and only root can hide it";
  const Ran refused = run_program(start, vm.agent_options());
  EXPECT_EQ(refused.code, kMissing) << refused.describe();
  EXPECT_THAT(refused.error, AllOf(HasSubstr("this VM wants KVM, and KVM does not work here: "),
                                   HasSubstr("agent-vm update --accel auto")));
  EXPECT_FALSE(fs::exists(vm.directory() + "/run.json"));
  EXPECT_FALSE(fs::exists(vm.directory() + "/disk.img"));
  // The control: the accelerator was the reason. What runs instead says what it is.
  ASSERT_TRUE(vm.agent({"update", vm.name(), "--accel", "auto"}).ok());
  const Ran started = run_program(start, vm.agent_options());
  ASSERT_TRUE(started.ok()) << started.describe();
  EXPECT_THAT(started.error, HasSubstr("KVM does not work here ("));
  EXPECT_THAT(started.error, HasSubstr("not isolated by hardware"));
  const Ran status = vm.agent({"status", vm.name()});
  EXPECT_THAT(status.out, HasSubstr("Isolation: software emulation, NOT isolated by hardware\n"));
  EXPECT_EQ(vm.status()["hardware_isolation"], false);
}

// These share a VM; whichever runs first, the shared one is started without --debug.
class RestartTest : public RunningVmTest {};

// The guest's root can write what it likes to its disk: here, what QEMU takes for an image over
// some file of the host. (The first KiB means nothing to ext4.)
TEST_F(RestartTest, S27_ADiskThatLooksLikeAnImageIsNotReadAsOne) {
  ASSERT_TRUE(vm().stop({"--force"}).ok());
  const std::string disk = vm().directory() + "/disk.img";
  const std::string canary = vm().root() + "/canary.raw";
  const std::string secret = "the canary sings";
  write_file(canary, secret);
  fs::resize_file(canary, 1U << 20U);
  const std::string bait = vm().root() + "/bait.qcow2";
  ASSERT_TRUE(run_program({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-b",
                           canary, "-F", "raw", bait})
                  .ok());
  ASSERT_TRUE(
      run_program({"dd", "if=" + bait, "of=" + disk, "bs=1024", "count=1", "conv=notrunc"}).ok());
  // The control: whoever guesses the format reads the canary as this disk's backing file.
  const Ran trusting = run_program({"qemu-img", "info", "--backing-chain", disk});
  EXPECT_THAT(trusting.out, HasSubstr(canary)) << trusting.describe();

  const Ran started = vm().agent({"start", vm().name()});
  ASSERT_TRUE(started.ok()) << started.describe();
  const pid_t qemu = vm().child("qemu");
  ASSERT_GT(qemu, 0);
  // That directory is QEMU's, whose id is neither root's nor the tester's: the root of the VM's
  // user namespace may look into it.
  const Ran open_files =
      run_program({"nsenter", "-U", "-t", std::to_string(vm().supervisor()->pid), "find",
                   fmt::format("/proc/{}/fd", qemu), "-type", "l", "-printf", "%l\\n"});
  EXPECT_TRUE(open_files.ok()) << open_files.describe();
  EXPECT_THAT(open_files.out, HasSubstr(disk)) << "the control: open files are seen";
  EXPECT_THAT(open_files.out, Not(HasSubstr("canary")));
  EXPECT_EQ(vm().root_says("head -c 65536 /dev/vdb | grep -c '" + secret + "' || true"), "0");
}

TEST_F(RestartTest, M3_DebugShowsArgumentsMonitorAndPhases) {
  // The control: this run was started without the flag, and there is none of it.
  EXPECT_THAT(vm().file("logs/supervisor.log"), Not(HasSubstr("qmp_capabilities")));
  ASSERT_TRUE(vm().stop({"--force"}).ok());

  const Ran ran =
      run_program(vm().agent_argv({"start", vm().name()}, {"--debug"}), vm().agent_options());
  ASSERT_TRUE(ran.ok()) << ran.describe();
  const std::string log = vm().file("logs/supervisor.log");
  EXPECT_THAT(log, HasSubstr("-nodefaults"));        // QEMU's arguments
  EXPECT_THAT(log, HasSubstr("sandbox=namespace"));  // virtiofsd's
  EXPECT_THAT(log, HasSubstr("--ssh-listener"));     // the relay's
  EXPECT_THAT(log, HasSubstr("qmp_capabilities"));   // what the monitor is asked
  EXPECT_THAT(log, HasSubstr("VSERPORT_CHANGE"));    // what it says
  for (const auto* phase : {"ports", "gateway", "qemu", "guest agent", "identity", "mcp endpoint"})
    EXPECT_THAT(log, HasSubstr(fmt::format("start: {} after", phase)));
  EXPECT_THAT(ran.error, HasSubstr("ssh")) << "the command's own programs are shown, too";
  EXPECT_THAT(log, Not(HasSubstr(vm().token()))) << "S21: not even here";
}

// What was in /tmp is moved aside and removed while the VM goes on; it may end before that is done.
TEST_F(RestartTest, F14_ARemovalOfTmpThatWasCutOffIsDoneByTheNextStart) {
  const std::string disk = "/run/agent-vm/disk";
  // Whatever number a process of the next start has: there is a folder of that name already.
  vm().root_says("bash -c 'mkdir -p " + disk + "/old/{1..4000}/left'; touch /tmp/mine; sync");
  // The control: that is the folder whose content /tmp shows.
  EXPECT_EQ(vm().root_says("ls " + disk + "/tmp/mine"), disk + "/tmp/mine");
  ASSERT_TRUE(vm().stop({"--force"}).ok());
  ASSERT_TRUE(vm().start());
  EXPECT_FALSE(vm().guest("ls /tmp/mine").ok());
  EXPECT_EQ(vm().root_says("timeout 60 sh -c 'while [ -e " + disk +
                           "/old ]; do sleep 0.1; done' && echo gone"),
            "gone");
}

TEST_F(RestartTest, TheGuestSaysWhenAProgramHasEnded) {
  ASSERT_TRUE(vm().stop({"--force"}).ok());
  const Ran ran =
      run_program(vm().agent_argv({"start", vm().name()}, {"--debug"}), vm().agent_options());
  ASSERT_TRUE(ran.ok()) << ran.describe();
  EXPECT_THAT(vm().file("logs/supervisor.log"), HasSubstr("the guest rings"));
  // The control: who cannot ring is asked now and then. The port takes one at a time.
  const std::string holder =
      vm().root_says("sleep 1000 > /dev/virtio-ports/agent-vm.bell.0 2>&1 < /dev/null & echo $!");
  const auto status = vm().status();
  EXPECT_TRUE(status["workspace"].value("reachable", false)) << status.dump(2);
  vm().root_says("kill " + holder);
}

TEST_F(RestartTest, M1_AServiceThatCannotStartFailsTheStart) {
  vm().root_says("mv /usr/lib/agent-vm/agent-mcp /usr/lib/agent-vm/agent-mcp.away; sync");
  const auto before = vm().footprint();
  ASSERT_TRUE(vm().stop().ok());
  const Ran ran = vm().agent({"start", vm().name()});
  EXPECT_EQ(ran.code, kFailed) << ran.describe();
  EXPECT_THAT(ran.error, HasSubstr("agent-mcp")) << ran.describe();
  EXPECT_THAT(ran.out, Not(HasSubstr("Running"))) << ran.describe();
  EXPECT_TRUE(eventually(seconds(10), [&] { return vm().leftovers(before).empty(); }))
      << join(vm().leftovers(before), "\n");
  abandon();
}

}  // namespace
}  // namespace agent_vm::test

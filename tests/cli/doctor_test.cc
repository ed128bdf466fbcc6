#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/text.h"

#include "harness.h"

namespace agent_vm {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class DoctorTest : public CliTest {
 protected:
  // The check of that id in what `doctor --json` printed.
  nlohmann::json check(const std::string& output, const std::string& id) {
    const auto report = nlohmann::json::parse(output);
    for (const auto& one : report["checks"]) {
      if (one["id"] == id) return one;
    }
    ADD_FAILURE() << "no check " << id << " in " << output;
    return {};
  }
  // `doctor --json` after `script` has changed namespaces of its own.
  std::string doctor_after(const std::string& script) {
    write(root() + "/inside.sh", script + "\n" + AGENT_VM_BINARY + " doctor --json || true\n");
    return shell("unshare -rm sh -eu inside.sh");
  }
};

TEST_F(DoctorTest, ChecksEverythingThatAVmNeeds) {
  const Outcome outcome = agent_vm({"doctor", "--json"});
  const auto report = nlohmann::json::parse(outcome.out);
  for (const auto* id :
       {"qemu", "virtiofsd", "qemu-img", "kvm", "subordinate-ids", "user-namespaces", "tun",
        "memory", "open-files", "disk", "ssh", "git", "mmdebstrap", "image"}) {
    const auto one = check(outcome.out, id);
    EXPECT_NE(one["detail"], "") << id;
    EXPECT_TRUE(one["level"] == "ok" || one["level"] == "warning" || one["level"] == "missing");
    // What is missing can be mended, and the command is named.
    if (one["level"] == "missing") {
      EXPECT_NE(one["mend"], "") << id;
    }
  }
  EXPECT_EQ(outcome.code, report["level"] == "missing" ? 7 : 0);
}

TEST_F(DoctorTest, ALowLimitOfOpenFilesIsNamedUnlessRootRaisesIt) {
  const std::string out =
      shell("ulimit -Sn 1024; ulimit -Hn 5000; " AGENT_VM_BINARY " doctor --json || true");
  const auto one = check(out, "open-files");
  // As root, but where root has been left without CAP_SYS_RESOURCE.
  const bool raised = shell("ulimit -n 5000; ulimit -n 6000 2>&1 || true").empty();
  EXPECT_EQ(one["level"], raised ? "ok" : "warning") << one.dump();
  EXPECT_THAT(one["detail"].get<std::string>(), HasSubstr(raised ? "1048576" : "5000"));
  EXPECT_THAT(one.value("mend", ""), HasSubstr(raised ? "" : "hard nofile"));
}

TEST_F(DoctorTest, AMissingProgramIsNamedWithTheCommandThatInstallsIt) {
  ASSERT_EQ(check(agent_vm({"doctor", "--json"}).out, "git")["level"], "ok") << "the control";
  const Outcome outcome = plain({"doctor", "--json"}, repo(), {"PATH=/nonexistent"});
  EXPECT_EQ(outcome.code, 7);
  EXPECT_EQ(check(outcome.out, "git")["level"], "missing");
  EXPECT_EQ(check(outcome.out, "git")["mend"], "sudo apt-get install git");
  EXPECT_EQ(check(outcome.out, "ssh")["mend"], "sudo apt-get install openssh-client");
  const Outcome text = plain({"doctor"}, repo(), {"PATH=/nonexistent"});
  EXPECT_THAT(text.out, HasSubstr("missing  git"));
  EXPECT_THAT(text.out, HasSubstr("mend: sudo apt-get install git"));
}

TEST_F(DoctorTest, UserNamespacesAreTriedAndNotAssumed) {
  if (::system("unshare -rm true 2>/dev/null") != 0) GTEST_SKIP() << "needs user namespaces";
  const auto forbidden =
      check(doctor_after("echo 0 > /proc/sys/user/max_user_namespaces"), "user-namespaces");
  EXPECT_EQ(forbidden["level"], "missing");
  EXPECT_EQ(forbidden["mend"], "sudo sysctl -w user.max_user_namespaces=15000");
}

TEST_F(DoctorTest, ATunDeviceThatIsNotThereIsMissing) {
  if (::system("unshare -rm true 2>/dev/null") != 0) GTEST_SKIP() << "needs user namespaces";
  const auto hidden = check(doctor_after("mount -t tmpfs none /dev/net"), "tun");
  EXPECT_EQ(hidden["level"], "missing");
  EXPECT_EQ(hidden["mend"], "sudo modprobe tun");
}

TEST_F(DoctorTest, ATunDeviceThatMayNotBeOpenedIsNamedWithItsMode) {
  if (!is_root()) GTEST_SKIP() << "only root can make a device";
  // Root that may not override modes meets another user's device as a user would.
  const auto doctor_with = [&](const std::string& mode) {
    const std::string doctor = std::string(AGENT_VM_BINARY) + " doctor --json || true";
    return check(
        shell("unshare --mount sh -euc 'mount -t tmpfs none /dev/net; mknod /dev/net/tun c "
              "10 200; chown 1:1 /dev/net/tun; chmod " +
              mode + " /dev/net/tun; setpriv --bounding-set " +
              "-dac_override,-dac_read_search sh -c \"" + doctor + "\"'"),
        "tun");
  };
  const auto refused = doctor_with("0600");
  EXPECT_EQ(refused["level"], "missing");
  EXPECT_THAT(refused["detail"].get<std::string>(), HasSubstr("Permission denied"));
  EXPECT_EQ(refused["mend"], "sudo chmod 0666 /dev/net/tun");
  EXPECT_EQ(doctor_with("0666")["level"], "ok");
}

TEST_F(DoctorTest, M16_AUserWithoutSubordinateIdsIsToldHowToGetThem) {
  if (is_root()) GTEST_SKIP() << "root needs none";
  if (::system("unshare -rm true 2>/dev/null") != 0) GTEST_SKIP() << "needs user namespaces";
  const auto ids = fmt::format("unshare --map-user={} --map-group={} ", ::getuid(), ::getgid());
  const std::string doctor = std::string(AGENT_VM_BINARY) + " doctor --json || true";
  const auto lacking = check(shell("unshare -rm sh -euc 'mount --bind /dev/null /etc/subuid; " +
                                   ids + "sh -c \"" + doctor + "\"'"),
                             "subordinate-ids");
  EXPECT_EQ(lacking["level"], "missing");
  EXPECT_THAT(lacking["mend"].get<std::string>(), HasSubstr("usermod --add-subuids"));
}

TEST_F(DoctorTest, S1_AKvmThatOpensProvesNothing) {
  const auto kvm = check(agent_vm({"doctor", "--json"}).out, "kvm");
  // No image in this home: nothing to try KVM with, so it cannot be called working.
  EXPECT_EQ(kvm["level"], "warning");
}

}  // namespace
}  // namespace agent_vm

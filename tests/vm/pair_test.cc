// Two VMs of two branches at once (M14), and what one can do to the other: nothing (S6).
#include "base/text.h"
#include "support/http.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class PairTest : public VmTest {
 protected:
  void SetUp() override {
    VmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (!first_) {
      first_ = std::make_unique<TestVm>("pair", VmOptions{.branch = "one", .memory = "512M"});
      second_ = std::make_unique<TestVm>(*first_, VmOptions{.branch = "two", .memory = "512M"});
      ASSERT_TRUE(first_->create());
      ASSERT_TRUE(second_->create());
    }
    ASSERT_TRUE(first_->ensure_running());
    ASSERT_TRUE(second_->ensure_running());
  }
  static void TearDownTestSuite() {
    const Turn turn;
    second_.reset();
    first_.reset();
  }

  static HttpReply ask(const TestVm& vm, const std::string& token) {
    return http_request(vm.port(), "POST", "/mcp",
                        {"Authorization: Bearer " + token, "Content-Type: application/json",
                         "Accept: application/json, text/event-stream"},
                        R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{)"
                        R"("protocolVersion":"2025-06-18","capabilities":{},)"
                        R"("clientInfo":{"name":"test","version":"1"}}})");
  }

  static inline std::unique_ptr<TestVm> first_;
  static inline std::unique_ptr<TestVm> second_;
};

TEST_F(PairTest, M14_BothRunAndEachHasItsBranch) {
  for (const auto* vm : {first_.get(), second_.get()}) {
    const Ran status = vm->agent({"status", vm->name()});
    EXPECT_TRUE(status.ok()) << status.describe();
    EXPECT_THAT(status.out, HasSubstr("🟢 Agent Service: Running"));
  }
  EXPECT_EQ(first_->guest_says("cd /workspace && git branch --show-current"), "one");
  EXPECT_EQ(second_->guest_says("cd /workspace && git branch --show-current"), "two");
  const Ran list = first_->agent({"list"});
  EXPECT_THAT(list.out, HasSubstr("repo-one"));
  EXPECT_THAT(list.out, HasSubstr("repo-two"));
}

TEST_F(PairTest, M14_StoppingOneLeavesTheOther) {
  const auto before = first_->footprint();
  EXPECT_TRUE(first_->stop().ok());
  EXPECT_THAT(first_->leftovers(before), IsEmpty());
  EXPECT_EQ(second_->guest_says("echo alive"), "alive");
  EXPECT_TRUE(second_->agent({"status", second_->name()}).ok());
  EXPECT_EQ(first_->agent({"status", first_->name()}).code, 3);
}

TEST_F(PairTest, Identity_NothingIsTheSameInBoth) {
  const std::string script =
      "cat /etc/machine-id; hostname; cat /sys/class/net/eth0/address; "
      "cat /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2; cat /proc/sys/kernel/random/boot_id";
  const auto one = split_lines(first_->guest_says(script));
  const auto two = split_lines(second_->guest_says(script));
  ASSERT_EQ(one.size(), 5U);
  ASSERT_EQ(two.size(), 5U);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_NE(one[i], two[i]);
  EXPECT_NE(first_->token(), second_->token());
  EXPECT_NE(first_->file("ssh/id_ed25519"), second_->file("ssh/id_ed25519"));
}

TEST_F(PairTest, S6_OneReachesNothingOfTheOther) {
  // Both have the same addresses, each in a network of its own; what is left to try is the other's
  // forwarded ports, its token, its key, and its workspace.
  const std::string canary = "canary-of-two";
  second_->guest_says("echo " + canary + " > /workspace/canary");
  std::string probe;
  for (const auto& address :
       {std::string("127.0.0.1"), std::string("10.66.0.1"), std::string("10.66.0.16")}) {
    for (const std::uint16_t port : {second_->port(), second_->ssh_port()}) {
      probe += fmt::format(
          "timeout 3 bash -c '</dev/tcp/{0}/{1}' 2>/dev/null && echo reached {0} {1} &\n", address,
          port);
    }
  }
  probe += "timeout 3 bash -c '</dev/tcp/10.66.0.15/22' && echo control; wait";
  EXPECT_EQ(first_->root_says(probe), "control");
  EXPECT_THAT(first_->root_says("grep -r " + canary + " /workspace /mnt /media 2>/dev/null; true"),
              Not(HasSubstr(canary)));

  EXPECT_EQ(ask(*second_, second_->token()).status, 200);  // the control
  EXPECT_EQ(ask(*second_, first_->token()).status, 401);
  EXPECT_EQ(ask(*first_, second_->token()).status, 401);

  const auto login = [](const TestVm& key, const TestVm& target) {
    return run_program({"ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentityAgent=none",
                        "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o",
                        "UserKnownHostsFile=/dev/null", "-i", key.directory() + "/ssh/id_ed25519",
                        "-p", std::to_string(target.ssh_port()), "dev@127.0.0.1", "true"});
  };
  EXPECT_EQ(login(*second_, *second_).code, 0);  // the control
  const Ran refused = login(*first_, *second_);
  EXPECT_EQ(refused.code, 255);
  EXPECT_THAT(refused.error, HasSubstr("Permission denied"));
}

TEST_F(PairTest, S6_NoNamespaceIsShared) {
  const auto one = first_->footprint();
  const auto two = second_->footprint();
  EXPECT_GT(one.namespaces.size(), 8U);
  for (const auto& [name, held] : one.namespaces)
    EXPECT_FALSE(two.namespaces.contains(name)) << name;
}

}  // namespace
}  // namespace agent_vm::test

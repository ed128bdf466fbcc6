// What status says is what is (M1), and when SSH does not work the failing step is named (M2).
#include <sys/stat.h>

#include "base/text.h"
#include "support/http.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr int kHealthy = 0;
constexpr int kUnhealthy = 4;

class StatusTest : public RunningVmTest {
 protected:
  void expect_running() {
    const Ran status = vm().agent({"status", vm().name()});
    EXPECT_EQ(status.code, kHealthy) << status.describe();
    EXPECT_THAT(
        status.out,
        AllOf(HasSubstr("🟢 VM Status: Running\n"), HasSubstr("🟢 Agent Service: Running\n"),
              HasSubstr("🟢 MCP Proxy: Healthy\n"),
              HasSubstr(fmt::format("MCP Endpoint: http://127.0.0.1:{}/mcp\n", vm().port()))));
  }

  void expect_service_down() {
    const Ran status = vm().agent({"status", vm().name()});
    EXPECT_EQ(status.code, kUnhealthy) << status.describe();
    EXPECT_THAT(status.out, AllOf(HasSubstr("🟢 VM Status: Running\n"),
                                  HasSubstr("🟡 Agent Service: Not running\n"),
                                  HasSubstr("🟡 MCP Proxy: Not responding\n"),
                                  Not(HasSubstr("Agent Service: Running"))));
  }

  // `status --json` says that SSH fails at that step.
  void expect_ssh_fails_at(const std::string& step) {
    vm().close_ssh();
    const Ran ran = vm().agent({"status", vm().name(), "--json"});
    EXPECT_EQ(ran.code, kUnhealthy) << ran.describe();
    const auto status = nlohmann::json::parse(ran.out, nullptr, false);
    ASSERT_TRUE(status.is_object()) << ran.describe();
    EXPECT_EQ(status["ssh"]["authenticated"], false);
    EXPECT_EQ(status["ssh"]["failed_step"], step) << status["ssh"];
    EXPECT_NE(status["ssh"]["detail"], "");
  }

  void start_service() {
    vm().root_says(
        "systemctl daemon-reload; systemctl reset-failed agent-mcp; "
        "systemctl start agent-mcp");
  }
};

TEST_F(StatusTest, M1_RunningOnlyWhileTheServiceRuns) {
  expect_running();
  vm().root_says("systemctl stop agent-mcp");
  expect_service_down();
  start_service();
  expect_running();
}

TEST_F(StatusTest, M1_NotRunningAfterTheGatewayWasKilled) {
  vm().root_says(
      "mkdir -p /run/systemd/system/agent-mcp.service.d\n"
      "printf '[Service]\\nRestart=no\\n' > /run/systemd/system/agent-mcp.service.d/test.conf\n"
      "systemctl daemon-reload\n"
      "systemctl kill --kill-who=main --signal=KILL agent-mcp\n"
      "while systemctl is-active -q agent-mcp; do sleep 0.1; done");
  expect_service_down();
  vm().root_says("rm -r /run/systemd/system/agent-mcp.service.d");
  start_service();
  expect_running();
}

TEST_F(StatusTest, M1_NotRunningWhenMasked) {
  vm().root_says(
      "unit=$(systemctl show -P FragmentPath agent-mcp)\n"
      "mv \"$unit\" /root/agent-mcp.service; echo \"$unit\" > /root/unit-path\n"
      "ln -s /dev/null /etc/systemd/system/agent-mcp.service\n"
      "systemctl daemon-reload; systemctl stop agent-mcp");
  expect_service_down();
  vm().root_says(
      "rm /etc/systemd/system/agent-mcp.service; mv /root/agent-mcp.service $(cat "
      "/root/unit-path)");
  start_service();
  expect_running();
}

TEST_F(StatusTest, M1_AGatewayThatHangsIsNotHealthy) {
  vm().root_says("systemctl kill --kill-who=main --signal=STOP agent-mcp");
  const Ran status = vm().agent({"status", vm().name()});
  EXPECT_EQ(status.code, kUnhealthy) << status.describe();
  EXPECT_THAT(status.out, HasSubstr("🟡 MCP Proxy: Not responding\n"));
  vm().root_says("systemctl kill --kill-who=main --signal=CONT agent-mcp");
  EXPECT_TRUE(eventually(std::chrono::seconds(30), [&] {
    return http_request(vm().port(), "GET", "/health", {}).status == 200;
  }));
  expect_running();
}

TEST_F(StatusTest, M1_WithoutAWorkspaceItIsNotWell) {
  vm().root_says("systemctl stop agent-mcp; umount -l /workspace");
  const Ran status = vm().agent({"status", vm().name()});
  EXPECT_EQ(status.code, kUnhealthy) << status.describe();
  EXPECT_THAT(status.out, HasSubstr("Workspace: not reachable in the guest\n"));
  vm().root_says("mount -t virtiofs -o nosuid,nodev workspace /workspace");
  start_service();
  expect_running();
}

TEST_F(StatusTest, M1_TheProcessesAreTheRealOnes) {
  const auto processes = vm().status()["processes"];
  for (const auto* name : {"qemu", "virtiofsd", "relay"}) {
    EXPECT_GT(vm().child(name), 0) << name;
    EXPECT_EQ(processes.value(name, nlohmann::json::object()).value("pid", 0), vm().child(name));
  }
}

TEST_F(StatusTest, M2_KeyFileThatOthersCanRead) {
  const std::string key = vm().directory() + "/ssh/id_ed25519";
  ASSERT_EQ(::chmod(key.c_str(), 0644), 0);
  expect_ssh_fails_at("key file");
  ASSERT_EQ(::chmod(key.c_str(), 0600), 0);
  expect_running();
}

TEST_F(StatusTest, M2_NobodyListensOnThePort) {
  const std::string path = vm().directory() + "/config.json";
  const std::string good = read_text(path);
  auto config = nlohmann::ordered_json::parse(good);
  config["ssh_port"] = free_port();
  write_file(path, config.dump(2));
  expect_ssh_fails_at("port");
  write_file(path, good);
  expect_running();
}

TEST_F(StatusTest, M2_AnotherHostKey) {
  const std::string path = vm().directory() + "/ssh/known_hosts";
  const std::string good = read_text(path);
  const std::string other = vm().root() + "/other_key";
  ASSERT_TRUE(run_program({"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other}).ok());
  write_file(path, vm().name() + " " + read_text(other + ".pub"));
  expect_ssh_fails_at("host key");
  write_file(path, good);
  expect_running();
}

TEST_F(StatusTest, M2_TheGuestKnowsAnotherKey) {
  // The open connection outlives the change and takes it back.
  vm().root_says("mv /etc/ssh/authorized_keys /etc/ssh/authorized_keys.away");
  const Ran ran = vm().agent({"status", vm().name(), "--json"});
  EXPECT_EQ(ran.code, kUnhealthy) << ran.describe();
  EXPECT_EQ(nlohmann::json::parse(ran.out)["ssh"]["failed_step"], "authentication") << ran.out;
  vm().root_says("mv /etc/ssh/authorized_keys.away /etc/ssh/authorized_keys");
  expect_running();
}

TEST_F(StatusTest, M2_SshdDoesNotListen) {
  vm().root_says("systemctl stop ssh.service ssh.socket || systemctl stop ssh.service");
  const Ran ran = vm().agent({"status", vm().name(), "--json"});
  EXPECT_EQ(ran.code, kUnhealthy) << ran.describe();
  EXPECT_EQ(nlohmann::json::parse(ran.out)["ssh"]["failed_step"], "banner") << ran.out;
  vm().root_says("systemctl start ssh.service");
  expect_running();
}

}  // namespace
}  // namespace agent_vm::test

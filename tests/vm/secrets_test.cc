// What must not leak: the token (S21), terminal control (S25), the user's agent and environment
// (S26), and a VM's identity into the image.
#include <sys/stat.h>

#include <filesystem>

#include "base/text.h"
#include "support/http.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr const char* kInitialize =
    R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",)"
    R"("capabilities":{},"clientInfo":{"name":"test","version":"1"}}})";

class SecretsTest : public RunningVmTest {
 protected:
  static HttpReply initialize(std::vector<std::string> headers) {
    headers.insert(headers.end(), {"Content-Type: application/json",
                                   "Accept: application/json, text/event-stream"});
    return http_request(vm().port(), "POST", "/mcp", headers, kInitialize);
  }
  static std::string bearer() { return "Authorization: Bearer " + vm().token(); }
};

// Files of /proc of every process that this user may read, in which the text occurs.
std::vector<std::string> processes_knowing(const std::string& text) {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    if (!parse_unsigned(entry.path().filename().string())) continue;
    for (const auto* file : {"cmdline", "environ"}) {
      const std::string path = entry.path().string() + "/" + file;
      if (read_text(path).find(text) != std::string::npos) found.push_back(path);
    }
  }
  return found;
}

TEST_F(SecretsTest, S21_TheEndpointWantsTheTokenAndAGoodOrigin) {
  EXPECT_EQ(initialize({bearer()}).status, 200);  // the control
  const auto without = initialize({});
  EXPECT_EQ(without.status, 401);
  EXPECT_THAT(without.headers, HasSubstr("WWW-Authenticate: Bearer"));
  EXPECT_EQ(initialize({"Authorization: Bearer " + std::string(64, '0')}).status, 401);
  EXPECT_EQ(initialize({"Authorization: Basic " + vm().token()}).status, 401);

  EXPECT_EQ(initialize({bearer(), "Origin: https://claude.ai"}).status, 200);
  for (const auto* origin :
       {"https://evil.example", "null", "http://claude.ai", "https://claude.ai.evil.example",
        "https://claude.ai:444", "https://xclaude.ai"}) {
    EXPECT_EQ(initialize({bearer(), fmt::format("Origin: {}", origin)}).status, 403) << origin;
    EXPECT_EQ(initialize({fmt::format("Origin: {}", origin)}).status, 403) << origin;
  }
  // A page of another site whose name was made to resolve to this address.
  EXPECT_EQ(initialize({bearer(), fmt::format("Host: evil.example:{}", vm().port())}).status, 403);
}

TEST_F(SecretsTest, S21_TheUnixSocketIsItsOwnersAndChecksTheSame) {
  const std::string path = vm().directory() + "/mcp.sock";
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  EXPECT_EQ(vm().status()["mcp_socket"], path);
  const auto ask = [&](std::vector<std::string> headers) {
    headers.insert(headers.end(), {"Content-Type: application/json",
                                   "Accept: application/json, text/event-stream"});
    return http_request_unix(vm().directory(), "mcp.sock", "POST", "/mcp", headers, kInitialize)
        .status;
  };
  EXPECT_EQ(ask({bearer()}), 200);  // the control
  EXPECT_EQ(ask({}), 401);
  EXPECT_EQ(ask({bearer(), "Host: evil.example"}), 403);
  EXPECT_EQ(ask({bearer(), "Origin: https://evil.example"}), 403);
}

TEST_F(SecretsTest, S21_TheTokenIsInNoArgumentEnvironmentOrLog) {
  ASSERT_EQ(vm().token().size(), 64U);
  EXPECT_TRUE(vm().agent({"--debug", "status", vm().name()}).ok());
  EXPECT_THAT(processes_knowing(vm().token()), IsEmpty());
  const Ran logs = run_program({"grep", "-r", "-l", vm().token(), vm().directory() + "/logs"});
  EXPECT_EQ(logs.out, "");
  for (const auto* verb : {"status", "config", "list"}) {
    const Ran ran = vm().agent({"--debug", verb, "--json"});
    EXPECT_THAT(ran.out + ran.error, Not(HasSubstr(vm().token()))) << verb;
  }
  EXPECT_EQ(vm().root_says("token=$(cat /etc/agent-vm/mcp-token); cd /proc\n"
                           "grep -l -a -F \"$token\" [0-9]*/environ 2>/dev/null | wc -l\n"
                           "journalctl --no-pager -q | grep -c -F \"$token\"; true"),
            "0\n0");
  // The controls: both ways of looking find what is there to be found.
  EXPECT_EQ(vm().root_says("cat /etc/agent-vm/mcp-token"), vm().token());
  Background carrier({"sh", "-c", "sleep 100; :", vm().token()}, vm().root());
  EXPECT_THAT(processes_knowing(vm().token()), Not(IsEmpty()));
}

TEST_F(SecretsTest, S21_FilesOfAVmAreItsOwnersAlone) {
  struct stat info {};
  const auto mode = [&](const std::string& path) {
    EXPECT_EQ(::stat((vm().directory() + "/" + path).c_str(), &info), 0) << path;
    return info.st_mode & 07777U;
  };
  EXPECT_EQ(mode(""), 0700U);
  EXPECT_EQ(mode("ssh/id_ed25519"), 0600U);
  EXPECT_EQ(mode("ssh/id_ed25519.pub"), 0644U);
  EXPECT_EQ(mode("ssh/host_ed25519"), 0600U);
  EXPECT_EQ(mode("mcp_token"), 0600U);
  EXPECT_EQ(mode("disk.img"), 0600U);
  EXPECT_EQ(mode("control.sock"), 0600U);
}

TEST_F(SecretsTest, S25_LogsPrintNoControlBytes) {
  if (vm().agent({"logs", "--help"}).code != 0) GTEST_SKIP() << "this agent-vm has no logs";
  // A title, a colour, a clear screen, a carriage return over the line, C1, a bidirectional mark.
  constexpr const char* kBytes =
      "printf 'BEGIN\\033]0;owned\\007\\033[31mred\\033[2J\\rover\\302\\233H\\342\\200\\256END\\n'";
  vm().root_says(fmt::format("{} > /dev/ttyS0", kBytes));
  // As the service does: through its own connection to the journal, from its own control group.
  vm().root_says(
      "python3 - $(systemctl show -P MainPID agent-mcp) "
      "$(systemctl show -P ControlGroup agent-mcp) <<'END'\n"
      "import ctypes, os, sys\n"
      "SYS_pidfd_getfd = 438\n"
      "open('/sys/fs/cgroup' + sys.argv[2] + '/cgroup.procs', 'w').write('0')\n"
      "process = os.pidfd_open(int(sys.argv[1]))\n"
      "stderr = ctypes.CDLL(None).syscall(SYS_pidfd_getfd, process, 2, 0)\n"
      "os.write(stderr, "
      "b'BEGIN\\033]0;owned\\007\\033[31mred\\033[2J\\rover\\302\\233H\\342\\200\\256END\\n')\n"
      "END\n"
      "journalctl --sync");
  for (const auto& verb : std::vector<std::vector<std::string>>{{"logs", vm().name(), "--console"},
                                                                {"logs", vm().name()}}) {
    const Ran ran = vm().agent(verb);
    EXPECT_TRUE(ran.ok()) << ran.describe();
    const auto line = [&]() -> std::string {
      for (const auto& each : split_lines(ran.out)) {
        if (each.find("BEGIN") != std::string::npos) return each;
      }
      return "";
    }();
    EXPECT_THAT(line, HasSubstr("\\x1b]0;owned\\x07\\x1b[31mred\\x1b[2J")) << ran.describe();
    EXPECT_THAT(line, HasSubstr("END"));
    for (const auto* byte : {"\x1b", "\x07", "\r", "\xc2\x9b", "\xe2\x80\xae"})
      EXPECT_THAT(ran.out, Not(HasSubstr(byte)));
  }
  // The control: the bytes did arrive.
  EXPECT_THAT(vm().file("logs/console.log"), HasSubstr("BEGIN\x1b]0;owned\x07"));
}

TEST_F(SecretsTest, S26_NeitherAgentNorEnvironmentReachTheGuest) {
  const std::string socket = vm().root() + "/agent.sock";
  Background agent({"ssh-agent", "-D", "-a", socket}, vm().root());
  ASSERT_TRUE(eventually(std::chrono::seconds(5), [&] { return fs::exists(socket); }));
  const std::vector<std::string> environment{"SSH_AUTH_SOCK=" + socket, "CANARY=sings",
                                             "LC_CANARY=sings"};
  ASSERT_TRUE(run_program({"ssh-add", "-q", vm().directory() + "/ssh/id_ed25519"},
                          {.environment = environment})
                  .ok());
  // The control: here, the agent holds a key and the variable is set.
  EXPECT_TRUE(run_program({"ssh-add", "-l"}, {.environment = environment}).ok());

  if (vm().agent({"exec", "--help"}).code != 0) GTEST_SKIP() << "this agent-vm has no exec";
  RunOptions options{.environment = environment};
  const Ran keys = vm().agent({"exec", vm().name(), "--", "ssh-add", "-l"}, options);
  EXPECT_EQ(keys.code, 2) << keys.describe();  // "could not open a connection to your agent"
  const Ran variables = vm().agent({"exec", vm().name(), "--", "env"}, options);
  EXPECT_TRUE(variables.ok()) << variables.describe();
  EXPECT_THAT(variables.out, Not(HasSubstr("sings")));
  EXPECT_THAT(variables.out, Not(HasSubstr("SSH_AUTH_SOCK")));
  // The supervisor lives on: what it was started with must not be it either.
  const Ran of_supervisor =
      run_program({"cat", fmt::format("/proc/{}/environ", vm().supervisor()->pid)});
  EXPECT_THAT(of_supervisor.out, Not(HasSubstr("SSH_AUTH_SOCK")));
}

TEST_F(SecretsTest, Identity_IsInTheGuestAndNotInTheImage) {
  const std::string image = original_image() + "/root.img";
  const auto in_image = [&](const std::string& path) {
    return run_program({"debugfs", "-R", "cat " + path, image}).out;
  };
  if (!run_program({"sh", "-c", "command -v debugfs"}).ok()) GTEST_SKIP() << "debugfs is missing";
  EXPECT_THAT(in_image("/usr/lib/os-release"), HasSubstr("Debian"));  // the control
  for (const auto* path :
       {"/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_rsa_key", "/etc/ssh/authorized_keys",
        "/etc/agent-vm/mcp-token", "/etc/agent-vm/mcp.json", "/home/dev/.ssh/authorized_keys"}) {
    EXPECT_EQ(in_image(path), "") << path;
  }
  EXPECT_EQ(trim(in_image("/etc/machine-id")), "");
  // No password opens any account.
  for (const auto& line : split_lines(in_image("/etc/shadow"))) {
    const auto fields = split(line, ':');
    EXPECT_TRUE(fields.size() < 2 || fields[1].starts_with('*') || fields[1].starts_with('!'))
        << line;
  }
  EXPECT_EQ(vm().guest_says("cat /etc/machine-id").size(), 32U);
  EXPECT_THAT(vm().guest_says("cat /proc/cmdline"), Not(HasSubstr(vm().name())));
  EXPECT_EQ(vm().guest_says("hostname"), vm().name());
}

}  // namespace
}  // namespace agent_vm::test

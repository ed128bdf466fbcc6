// What the owner gives and keeps at the way out: rules, the CA, secrets (M10, M11, S20).
#include "vm/egress_suite.h"

namespace agent_vm::test {
namespace {

using nlohmann::json;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST_F(EgressTest, M10_ThePolicyChangesLive) {
  EXPECT_EQ(code("https://live.test/live"), "403");
  net({"allow", "live.test"});
  EXPECT_EQ(code("https://live.test/live"), "200");
  net({"deny", "POST live.test/push"});
  EXPECT_EQ(code("-X POST https://live.test/push"), "403");
  EXPECT_EQ(code("-X POST -d x https://live.test/fetch"), "200");
  const Ran tried = vm().agent(
      {"net", "test", "--method", "POST", "https://live.test/push", "--json", "--vm", vm().name()});
  EXPECT_EQ(json::parse(tried.out, nullptr, false).value("rule", ""), "POST live.test/push")
      << tried.describe();
  net({"deny", "live.test"});
  EXPECT_EQ(code("https://live.test/live"), "403");
  net({"mode", "monitor"});
  EXPECT_EQ(code("https://live.test/live"), "403");
  net({"mode", "off"});
  internet().forget();
  EXPECT_EQ(code("-m 5 https://ok.test/off"), "000");
  EXPECT_THAT(internet().packets(), IsEmpty());
  EXPECT_EQ(process("proxy"), 0);
  net({"mode", "allowlist"});
  EXPECT_TRUE(eventually(seconds(60), [] { return code("https://ok.test/on") == "200"; }));
  const Ran verified = vm().agent({"net", "log", "--verify", vm().name()});
  EXPECT_TRUE(verified.ok()) << verified.describe();
}

TEST_F(EgressTest, M11_LearnProposesWhatWasRefusedForWantOfARule) {
  EXPECT_EQ(code("https://learn.test/a"), "403");
  EXPECT_EQ(code("-X POST -d x https://learn.test/b"), "403");
  ASSERT_TRUE(last_record("https://learn.test/b").is_object());
  const Ran learnt = vm().agent({"net", "learn", vm().name(), "--json"});
  const json rules = json::parse(learnt.out, nullptr, false)["allow"];
  EXPECT_THAT(rules, Contains("GET,POST learn.test")) << learnt.describe();
  // What is allowed already, and what a rule of the owner's refuses, is not proposed.
  EXPECT_THAT(rules, Not(Contains(HasSubstr(" ok.test"))));
  const Ran shown = vm().agent({"net", "log", vm().name()});
  EXPECT_THAT(shown.out, HasSubstr("refused  GET https://learn.test/a  (no rule allows"));
}

TEST_F(EgressTest, S20_ASecretIsPutInOnTheWayToItsHostOnly) {
  const std::string placeholder = vm().guest_says("echo $TOKEN");
  ASSERT_THAT(placeholder, testing::StartsWith("agent-vm-placeholder-"));
  EXPECT_THAT(vm().root_says("tr '\\0' '\\n' < /proc/$(pidof agent-mcp)/environ"),
              HasSubstr("TOKEN=" + placeholder));
  EXPECT_EQ(vm().guest("echo \"<$MISSING>\"").out, "<>\n");
  const std::string bearer = "-H \"Authorization: Bearer $TOKEN\" ";
  // Used, and what the server reflects in body and headers is masked.
  const std::string answer = curl("-i " + bearer + "https://ok.test/echo");
  EXPECT_THAT(answer, HasSubstr("\n200"));
  EXPECT_THAT(answer, HasSubstr("Bearer " + std::string(std::strlen(kSecret), '*')));
  EXPECT_THAT(answer, Not(HasSubstr(kSecret)));
  EXPECT_THAT(internet().credentials(),
              ElementsAre(fmt::format("ok.test Authorization: Bearer {}", kSecret)));
  // git and many others use Basic.
  internet().forget();
  EXPECT_THAT(curl("-u ann:$TOKEN https://ok.test/echo"), HasSubstr("Basic ****"));
  EXPECT_THAT(internet().credentials(), ElementsAre("ok.test Authorization: Basic " +
                                                    base64_encode(std::string("ann:") + kSecret)));
  // Not for another host, in another header, without TLS, or on a bad certificate.
  internet().forget();
  EXPECT_EQ(code(bearer + "https://a.wild.test/echo"), "200");
  EXPECT_EQ(code("-H \"X-Token: $TOKEN\" https://ok.test/echo"), "200");
  EXPECT_EQ(code(bearer + "http://ok.test/echo"), "200");
  EXPECT_EQ(code(bearer + "https://bad.test/echo"), "502");
  EXPECT_THAT(internet().credentials(),
              ElementsAre("a.wild.test Authorization: Bearer " + placeholder,
                          "ok.test X-Token: " + placeholder,
                          "ok.test Authorization: Bearer " + placeholder));
  const json record = last_record("https://ok.test/echo");
  EXPECT_EQ(record["vm"], vm().name());
}

TEST_F(EgressTest, S20_ASecretIsNowhereInTheVmAndInNoRecord) {
  const std::string placeholder = vm().guest_says("echo $TOKEN");
  EXPECT_EQ(code("-H \"Authorization: Bearer $TOKEN\" https://ok.test/echo"), "200");
  ASSERT_THAT(internet().credentials(), Contains(HasSubstr(kSecret)));  // it was used
  const auto count = [](const std::string& text, const std::string& file) {
    return run_program({"grep", "--text", "--count", "--fixed-strings", text, file}).out;
  };
  const auto supervisor = vm().supervisor()->pid;
  const std::string memory =
      fmt::format("/proc/{}/root{}/memory/ram", supervisor, vm().directory());
  EXPECT_EQ(count(kSecret, memory), "0\n");
  EXPECT_NE(count(placeholder, memory), "0\n");  // the control
  EXPECT_EQ(vm().guest_root(fmt::format("grep -rlF {} /etc /home /var /root /tmp /run /workspace",
                                        shell_quote(kSecret)))
                .out,
            "");
  for (const auto* kept : {"logs", "audit", "network", "config.json", "secrets.json", "run.json"}) {
    const Ran found = run_program({"grep", "-rlF", kSecret, vm().directory() + "/" + kept});
    EXPECT_EQ(found.out, "") << kept;
  }
  EXPECT_THAT(vm().file("secrets.json"), HasSubstr(placeholder));  // the control
  for (const auto& process : descendants(supervisor)) {
    for (const auto* file : {"cmdline", "environ"})
      EXPECT_THAT(read_text(fmt::format("/proc/{}/{}", process.pid, file)),
                  Not(HasSubstr(kSecret)));
  }
}

TEST_F(EgressTest, S20_TheKeyStaysOnTheHost) {
  const std::string key = vm().file("ca/authority.pem");
  ASSERT_THAT(key, HasSubstr("PRIVATE KEY"));
  const std::string line = split_lines(key)[1];
  struct stat info {};
  ASSERT_EQ(::stat((vm().directory() + "/ca/authority.pem").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777U, 0600U);
  EXPECT_EQ(vm().guest_root("grep -rlF '" + line + "' /etc /usr/local /var /workspace /run").out,
            "");
  for (const auto* folder : {"logs", "workspace", "audit", "network"}) {
    const Ran found = run_program({"grep", "-rlF", line, vm().directory() + "/" + folder});
    EXPECT_EQ(found.out, "") << folder;
  }
  // The control: the certificate is found in the guest by the same search.
  const std::string certificate = split_lines(vm().file("ca/certificate.pem"))[1];
  EXPECT_THAT(vm().root_says("grep -rlF '" + certificate + "' /etc"),
              HasSubstr("/etc/agent-vm/ca.crt"));
}

TEST_F(EgressTest, S20_ANewAuthorityIsTrustedAfterARestart) {
  const std::string before = vm().guest_says("sha256sum < /etc/agent-vm/ca.crt");
  const Ran updated = vm().agent({"update", "--new-ca", vm().name()});
  ASSERT_TRUE(updated.ok()) << updated.describe();
  // Until then the old one, whatever dies.
  ASSERT_EQ(::kill(process("proxy"), SIGKILL), 0);
  EXPECT_EQ(code("-m 60 https://ok.test/old"), "200");
  vm().close_ssh();
  const Ran restarted = vm().agent({"restart", vm().name()});
  ASSERT_TRUE(restarted.ok()) << restarted.describe();
  EXPECT_NE(vm().guest_says("sha256sum < /etc/agent-vm/ca.crt"), before);
  EXPECT_EQ(code("-m 60 https://ok.test/new"), "200");
}

}  // namespace
}  // namespace agent_vm::test

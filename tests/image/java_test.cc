// Java asks a store of its own, which only Java can write. A suite of the slow ones, because the
// image has a Java, which takes its time in an emulated guest.
#include "base/text.h"
#include "owned_vm.h"

namespace agent_vm {
namespace {

using ::testing::HasSubstr;

class JavaTest : public OwnedVmTest {
 protected:
  // As in "AA:BB:...", of the CA that the host has for the VM.
  std::string fingerprint() const {
    const auto ran =
        run_checked({.argv = {"openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in",
                              folder_ + "/state/repo-main/ca/certificate.pem"}});
    EXPECT_TRUE(ran) << ran.error().message();
    return ran ? std::string(trim(ran->out.substr(ran->out.find('=') + 1))) : "";
  }
  // It is put there beside the start.
  CommandOutput java_trusts(const std::string& fingerprint) const {
    const std::string list =
        "keytool -list -cacerts -storepass changeit -alias debian:agent-vm.pem";
    return agent_vm({"exec", "repo-main", "--", "timeout", "300", "sh", "-c",
                     "until " + list + " | grep -F '" + fingerprint + "'; do sleep 1; done"});
  }
};

TEST_F(JavaTest, M11_JavaTrustsTheAuthorityOfItsVm) {
  std::ofstream(folder_ + "/repo/agent-vm.toml")
      << "[image]\npackages = [\"default-jre-headless\"]\n";
  ASSERT_TRUE(agent_vm({"trust", "--yes"}).ok());
  const auto built = agent_vm({"image", "build", "--package", "default-jre-headless"});
  ASSERT_TRUE(built.ok()) << built.error;
  const auto created = agent_vm({"create"});
  ASSERT_TRUE(created.ok()) << created.error;
  start();
  const std::string first = fingerprint();
  ASSERT_EQ(first.size(), 95U);
  const auto trusted = java_trusts(first);
  EXPECT_TRUE(trusted.ok()) << trusted.out << trusted.error;

  // The control: another authority takes its place.
  ASSERT_TRUE(agent_vm({"stop", "repo-main"}).ok());
  ASSERT_TRUE(agent_vm({"update", "repo-main", "--new-ca"}).ok());
  start();
  EXPECT_NE(fingerprint(), first);
  const auto renewed = java_trusts(fingerprint());
  EXPECT_TRUE(renewed.ok()) << renewed.out << renewed.error;
  const auto old = agent_vm(
      {"exec", "repo-main", "--", "sh", "-c", "keytool -list -cacerts -storepass changeit"});
  EXPECT_THAT(old.out, HasSubstr("debian:agent-vm.pem"));
  EXPECT_THAT(old.out, ::testing::Not(HasSubstr(first)));
}

}  // namespace
}  // namespace agent_vm

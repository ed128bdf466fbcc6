// The way out of a VM that an ordinary user runs. Only root can make an internet of network
// namespaces, so root runs this test, and the user in it only agent-vm.
#include <pwd.h>
#include <unistd.h>

#include "support/options.h"
#include "vm/egress_suite.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

class EgressOfAnOrdinaryUserTest : public InternetTest {
 protected:
  void SetUp() override {
    InternetTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (options().user.empty()) GTEST_SKIP() << "no ordinary user was named (--user)";
    const passwd* user = ::getpwnam(options().user.c_str());  // NOLINT(concurrency-mt-unsafe)
    ASSERT_NE(user, nullptr) << options().user;
    home_ = user->pw_dir;
    // Not below this run's own folder, into which only root may look.
    std::string folder = "/tmp/agent-vm-test-user-XXXXXX";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    ASSERT_EQ(::chown(folder_.c_str(), user->pw_uid, user->pw_gid), 0);
    ASSERT_EQ(::chmod(folder_.c_str(), 0755), 0);
    internet_ = std::make_unique<Internet>(folder_ + "/internet");
    ASSERT_EQ(internet_->problem(), "");
  }
  void TearDown() override {
    if (!folder_.empty()) agent_vm({"destroy", "vm", "--yes", "--purge"});
    internet_.reset();
    if (!folder_.empty()) fs::remove_all(folder_);
  }

  Ran as_user(const std::vector<std::string>& command) const {
    std::vector<std::string> argv{"setpriv",
                                  "--reuid",
                                  options().user,
                                  "--regid",
                                  options().user,
                                  "--init-groups",
                                  "env",
                                  "-i",
                                  "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                                  "HOME=" + home_,
                                  "XDG_CONFIG_HOME=" + folder_ + "/config",
                                  "SSL_CERT_FILE=" + folder_ + "/internet/ca.pem",
                                  "LC_ALL=C.UTF-8"};
    argv.insert(argv.end(), command.begin(), command.end());
    return run_program(argv, {.directory = folder_});
  }
  Ran agent_vm(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(),
                     {home_ + "/agent-vm/bin/agent-vm", "--state-dir", folder_ + "/state"});
    return as_user(arguments);
  }
  void must(const std::vector<std::string>& arguments) const {
    const Ran ran = agent_vm(arguments);
    EXPECT_TRUE(ran.ok()) << join(arguments, " ") << "\n" << ran.describe();
  }
  // The status of what curl in the guest got; 000: nothing.
  std::string code(const std::string& url) const {
    return std::string(trim(agent_vm({"exec", "vm", "--", "curl", "-s", "-m", "20", "-o",
                                      "/dev/null", "-w", "%{http_code}", url})
                                .out));
  }
  const Internet& internet() const { return *internet_; }
  const std::string& folder() const { return folder_; }

 private:
  std::string home_;
  std::string folder_;
  std::unique_ptr<Internet> internet_;
};

TEST_F(EgressOfAnOrdinaryUserTest, M11_WhatIsAllowedGoesThroughAndNothingElse) {
  ASSERT_TRUE(as_user({"sh", "-c",
                       "git init -q repo && git -C repo -c user.name=t -c user.email=t@localhost "
                       "commit -q --allow-empty -m first"})
                  .ok());
  must({"create", folder() + "/repo", "--name", "vm", "--memory", "1G"});
  must({"start", "vm"});
  if (HasFailure()) return;
  // Of the default policy, which names no host of this internet.
  EXPECT_EQ(code("https://ok.test/before"), "403");
  EXPECT_THAT(internet().requests(), IsEmpty());
  EXPECT_THAT(internet().packets(), Not(Contains(StartsWith("tcp 203.0.113."))));

  must({"net", "allow", "ok.test", "--vm", "vm"});
  EXPECT_EQ(code("https://ok.test/after"), "200");
  EXPECT_THAT(internet().requests(), Contains("ok.test GET /after"));
  internet().forget();

  // By name, by address, past the proxy, and to what is around the host.
  EXPECT_EQ(code("https://evil.test/"), "403");
  for (const auto* url : {"https://203.0.113.66/", "http://203.0.113.66:8443/", "http://10.0.2.2/",
                          "http://198.51.100.1/", "http://169.254.169.254/"}) {
    EXPECT_THAT(code(url), testing::AnyOf("000", "403")) << url;
  }
  must({"exec", "vm", "--", "sh", "-c", "getent hosts data.evil.test > /dev/null"});
  EXPECT_THAT(internet().requests(), IsEmpty());
  EXPECT_THAT(internet().queries(), Not(Contains(HasSubstr("evil"))));
  for (const auto& packet : internet().packets())
    EXPECT_THAT(packet,
                testing::AnyOf(StartsWith("udp 198.51.100.2 "), StartsWith("tcp 203.0.113.10 ")));

  const std::string log = agent_vm({"net", "log", "vm"}).out;
  EXPECT_THAT(log, HasSubstr("https://ok.test/after"));
  EXPECT_THAT(log, HasSubstr("https://evil.test/"));
  must({"net", "log", "vm", "--verify"});

  must({"net", "off", "vm"});
  EXPECT_THAT(code("https://ok.test/off"), testing::AnyOf("000", "403"));
  EXPECT_THAT(internet().requests(), Not(Contains(HasSubstr("/off"))));
}

}  // namespace
}  // namespace agent_vm::test

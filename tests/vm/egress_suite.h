// A VM in an internet of the test's own, for the tests of its way out.
#pragma once

#include <sys/stat.h>

#include <csignal>
#include <cstring>
#include <filesystem>

#include "base/text.h"
#include "os/process_identity.h"
#include "support/internet.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {

inline constexpr const char* kEgressSettings = R"(
[network]
allow = ["ok.test", "bad.test", "*.wild.test", "private.test", "lo.test", "meta.test", "host.test",
         "multi.test", "rebind.test", "GET evil.test/only/*"]
)";

inline constexpr const char* kSecret = "geheim-4b9f/ok+nie";
inline constexpr const char* kEgressSecrets = R"([vm]
[secrets.TOKEN]
env = "EGRESS_SECRET"
hosts = ["ok.test", "bad.test"]
[secrets.MISSING]
file = "/nonexistent"
hosts = ["ok.test"]
)";

// For tests with an internet of their own, which not every machine and user can make.
class InternetTest : public VmTest {
 protected:
  void SetUp() override {
    VmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (const auto missing = Internet::missing(); !missing.empty()) GTEST_SKIP() << missing;
  }
};

class EgressTest : public InternetTest {
 protected:
  void SetUp() override {
    InternetTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (!internet_) {
      // In this order: the VM's host is the internet's.
      vm_ = std::make_unique<TestVm>(
          "egress", VmOptions{.network = "", .repository_settings = kEgressSettings});
      run_program({"git", "-C", vm_->repository(), "remote", "set-url", "origin",
                   "https://code.test/team/app.git"});
      write_file(vm_->root() + "/config/agent-vm/config.toml", kEgressSecrets);
      ::setenv("EGRESS_SECRET", kSecret, 1);
      ::setenv("npm_config_registry", "https://packages.test/npm/", 1);
      ::setenv("PIP_INDEX_URL", "https://ann:geheim@packages.test/pip/simple", 1);
      internet_ = std::make_unique<Internet>(vm_->root() + "/internet");
    }
    ASSERT_EQ(internet_->problem(), "");
    ASSERT_TRUE(vm_->ensure_running());
    ASSERT_TRUE(eventually(std::chrono::seconds(60),
                           [] { return code("https://ok.test/ready") == "200"; }));
    internet_->forget();
  }
  static void TearDownTestSuite() {
    const Turn turn;
    vm_.reset();
    internet_.reset();
    ::unsetenv("EGRESS_SECRET");
    ::unsetenv("npm_config_registry");
    ::unsetenv("PIP_INDEX_URL");
  }

  static TestVm& vm() { return *vm_; }
  static Internet& internet() { return *internet_; }

  // Body and, on the last line, status of what curl got; 000: nothing.
  static std::string curl(const std::string& arguments) {
    return vm().guest("curl -sS -m 20 -w '\\n%{http_code}' " + arguments + " 2>&1").out;
  }
  static std::string code(const std::string& arguments) {
    const auto lines = split_lines(curl(arguments));
    return lines.empty() ? "" : lines.back();
  }
  static std::vector<nlohmann::json> records() {
    std::vector<nlohmann::json> all;
    for (const auto& line : split_lines(vm().agent({"net", "log", vm().name(), "--json"}).out)) {
      all.push_back(nlohmann::json::parse(line, nullptr, false));
    }
    return all;
  }
  static nlohmann::json last_record(const std::string& url) {
    nlohmann::json found;
    // The proxy records a request when its answer has ended, the client may have it a moment
    // before.
    eventually(std::chrono::seconds(5), [&] {
      for (const auto& record : records()) {
        if (record.is_object() && record.value("url", "") == url) found = record;
      }
      return found.is_object();
    });
    return found;
  }
  static void net(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "net");
    arguments.insert(arguments.end(), {"--vm", vm().name()});
    const Ran ran = vm().agent(arguments);
    EXPECT_TRUE(ran.ok()) << ran.describe();
  }
  // 0 when it does not run.
  static pid_t process(const std::string& name) {
    const nlohmann::json processes = vm().status()["processes"];
    return processes.contains(name) ? processes[name].value("pid", 0) : 0;
  }

 private:
  static inline std::unique_ptr<Internet> internet_;
  static inline std::unique_ptr<TestVm> vm_;
};

}  // namespace agent_vm::test

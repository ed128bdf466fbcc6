// What groups of tests share.
#pragma once

#include <gmock/gmock.h>

#include <memory>

#include "support/image.h"
#include "support/turn.h"
#include "support/vm.h"

namespace agent_vm::test {

// Tests that need nothing but a VM's configuration, or start one themselves.
class VmTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto missing = missing_for_vms(); !missing.empty()) GTEST_SKIP() << missing;
    ASSERT_EQ(image_cache().problem, "");
  }

  // From now on until its end this test has the machine to itself; say why.
  void alone() { turn_.alone(); }

 private:
  Turn turn_;
};

// Tests that need a running VM. All of one suite share one, because a start takes long without
// hardware virtualization; each leaves it as it found it or stopped, and finds it running.
class RunningVmTest : public VmTest {
 protected:
  void SetUp() override {
    VmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (!shared()) shared() = std::make_unique<TestVm>("shared");
    // A VM that does not start will not start for the next test either, and each try is long.
    ASSERT_LT(failed_starts(), 2) << "two starts in a row failed: not tried again";
    const auto runs = vm().ensure_running();
    failed_starts() = runs ? 0 : failed_starts() + 1;
    ASSERT_TRUE(runs);
  }
  static void TearDownTestSuite() {
    const Turn turn;
    shared().reset();
  }

  static TestVm& vm() { return *shared(); }
  // The next test makes another: this one is broken for good.
  static void abandon() { shared().reset(); }

 private:
  static int& failed_starts() {
    static int count = 0;
    return count;
  }
  static std::unique_ptr<TestVm>& shared() {
    static std::unique_ptr<TestVm> one;
    return one;
  }
};

}  // namespace agent_vm::test

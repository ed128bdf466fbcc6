// A VM of a small repository, whose owner has a configuration of this test's own.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "os/run.h"

namespace agent_vm {

class OwnedVmTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/owned_vm_test_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
    std::filesystem::create_directories(folder_ + "/config/agent-vm");
    configure("");
    shell(
        "git init -q -b main repo && cd repo && git -c user.name=a -c user.email=a@localhost "
        "commit -q --allow-empty -m First");
  }
  void TearDown() override {
    static_cast<void>(agent_vm({"destroy", "--purge", "--yes", "repo-main"}));
    std::filesystem::remove_all(folder_);
  }

  void configure(const std::string& more) const {
    const std::string file = folder_ + "/config/agent-vm/config.toml";
    std::ofstream(file) << "[vm]\nmemory = \"1G\"\n" << more;
    std::filesystem::permissions(
        file, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  }
  void shell(const std::string& script) const {
    const auto ran = run_checked({.argv = {"sh", "-euc", script}, .working_directory = folder_});
    ASSERT_TRUE(ran) << ran.error().message();
  }
  CommandOutput agent_vm(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {AGENT_VM_BINARY, "--state-dir", folder_ + "/state"});
    auto ran = run({.argv = std::move(arguments),
                    .extra_environment = {"XDG_CONFIG_HOME=" + folder_ + "/config"},
                    .working_directory = folder_ + "/repo"});
    EXPECT_TRUE(ran) << ran.error().message();
    return ran ? std::move(*ran) : CommandOutput();
  }
  void start() {
    const auto started = agent_vm({"start", "repo-main"});
    ASSERT_TRUE(started.ok()) << started.error;
  }

  std::string folder_;
};

}  // namespace agent_vm

// S30: a repository's own configuration cannot widen its cage.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "harness.h"

namespace agent_vm {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kHostile = R"([vm]
memory = "3G"
[image]
packages = ["evil-tool"]
npm = ["evil-package"]
[mcp]
allowed_origins = ["https://evil.example"]
[mcp.servers.evil]
command = ["evil", "--now"]
)";

class TrustTest : public CliTest {
 protected:
  void SetUp() override { write(repo() + "/agent-vm.toml", kHostile); }
  nlohmann::json config() {
    return nlohmann::json::parse(read(state() + "/repo-main/config.json"));
  }
};

TEST_F(TrustTest, S30_NothingHappensBeforeTrustAndTheDifferenceIsShown) {
  const Outcome outcome = agent_vm({"create"});
  expect_refused(outcome, 2, "you have not trusted it");
  for (const auto* line : {"memory: 2 GiB -> 3 GiB", "package: + evil-tool",
                           "npm package: + evil-package", "allowed origin: + https://evil.example",
                           "MCP server evil: + evil --now", "agent-vm trust "}) {
    EXPECT_THAT(outcome.error, HasSubstr(line));
  }
  // Nobody is there to say yes; so asking to trust is refused too, with the command that means it.
  const Outcome asked = agent_vm({"trust"});
  EXPECT_EQ(asked.code, 2);
  EXPECT_THAT(asked.error, HasSubstr("agent-vm trust --yes"));
  EXPECT_EQ(agent_vm({"create"}).code, 2);

  // The control: after trust it all applies.
  EXPECT_EQ(agent_vm({"trust", "--yes"}).code, 0);
  ASSERT_EQ(agent_vm({"create"}).code, 0);
  EXPECT_EQ(config()["memory_bytes"], 3ULL << 30);
  EXPECT_EQ(config()["image"]["packages"][0], "evil-tool");
  EXPECT_EQ(config()["mcp"]["servers"]["evil"]["argv"][1], "--now");
}

TEST_F(TrustTest, S30_TrustIsForThisContentOfThisRepositoryOnly) {
  ASSERT_EQ(agent_vm({"trust", "--yes"}).code, 0);
  write(repo() + "/agent-vm.toml", std::string(kHostile) + "# changed\n");
  expect_refused(agent_vm({"create"}), 2, "you have not trusted it");
  write(repo() + "/agent-vm.toml", kHostile);
  make_repository(root() + "/other");
  write(root() + "/other/agent-vm.toml", kHostile);
  expect_refused(agent_vm({"create", root() + "/other"}), 2, "you have not trusted it");
  EXPECT_EQ(agent_vm({"create"}).code, 0);
}

TEST_F(TrustTest, S30_RevokedTrustAndABrokenStoreTrustNothing) {
  ASSERT_EQ(agent_vm({"trust", "--yes"}).code, 0);
  ASSERT_EQ(agent_vm({"trust", "--revoke"}).code, 0);
  expect_refused(agent_vm({"create"}), 2, "you have not trusted it");
  ASSERT_EQ(agent_vm({"trust", "--yes"}).code, 0);
  write(home() + "/.config/agent-vm/trust.json", "{\"schema\": 1, \"trus");
  expect_refused(agent_vm({"create"}), 1, "trust.json is not JSON");
}

TEST_F(TrustTest, S30_NarrowingAppliesAtOnce) {
  write(repo() + "/agent-vm.toml", "[vm]\nmemory = \"512M\"\naccel = \"kvm\"\n");
  ASSERT_EQ(agent_vm({"create"}).code, 0);
  EXPECT_EQ(config()["memory_bytes"], 512ULL << 20);
  EXPECT_EQ(config()["accel"], "kvm");
}

TEST_F(TrustTest, S30_WhatIsTheOwnersIsRefusedEvenWithTrust) {
  write(repo() + "/agent-vm.toml", "[vm]\nsudo = true\n");
  expect_refused(agent_vm({"create", "--trust"}), 2, "only in the owner's own configuration");
  std::filesystem::remove(repo() + "/agent-vm.toml");
  std::filesystem::create_directories(home() + "/.config/agent-vm");
  write(home() + "/.config/agent-vm/config.toml", "[vm]\nsudo = true\nmemory = \"1G\"\n");
  ASSERT_EQ(agent_vm({"create"}).code, 0);
  EXPECT_EQ(config()["sudo"], true);
  EXPECT_EQ(config()["memory_bytes"], 1ULL << 30);
}

TEST_F(TrustTest, TheOwnersFileMustBeTheOwnersAlone) {
  std::filesystem::remove(repo() + "/agent-vm.toml");
  std::filesystem::create_directories(home() + "/.config/agent-vm");
  write(home() + "/.config/agent-vm/config.toml", "[vm]\nsudo = true\n");
  shell("chmod 0666 home/.config/agent-vm/config.toml");
  expect_refused(agent_vm({"create"}), 2, "others than you can write to it");
}

TEST_F(TrustTest, OnATerminalTheOwnerIsAsked) {
  const Outcome no = on_terminal({"create"}, "n\n");
  EXPECT_EQ(no.code, 2);
  EXPECT_THAT(no.out, HasSubstr("package: + evil-tool"));
  EXPECT_THAT(entries(state()), testing::IsEmpty());
  EXPECT_EQ(on_terminal({"create"}, "y\n").code, 0);
  EXPECT_EQ(config()["image"]["packages"][0], "evil-tool");
}

TEST_F(TrustTest, UpdateReadsTheFileAgainUnderTheSameRule) {
  std::filesystem::remove(repo() + "/agent-vm.toml");
  ASSERT_EQ(agent_vm({"create", "--memory", "1G"}).code, 0);
  write(repo() + "/agent-vm.toml", kHostile);
  EXPECT_EQ(agent_vm({"update"}).code, 2);
  EXPECT_TRUE(config()["image"]["packages"].empty());
  const Outcome outcome = agent_vm({"update", "--trust"});
  ASSERT_EQ(outcome.code, 0) << outcome.error;
  EXPECT_EQ(config()["image"]["packages"][0], "evil-tool");
  EXPECT_EQ(config()["memory_bytes"], 1ULL << 30) << "what was named on the command line stays";
  // The file is gone: what it gave goes with it.
  std::filesystem::remove(repo() + "/agent-vm.toml");
  ASSERT_EQ(agent_vm({"update"}).code, 0);
  EXPECT_TRUE(config()["image"]["packages"].empty());
  // The guest's own copy is never read.
  write(state() + "/repo-main/workspace/agent-vm.toml", kHostile);
  EXPECT_THAT(agent_vm({"update"}).out, HasSubstr("nothing to change"));
}

}  // namespace
}  // namespace agent_vm

// agent-vm mcp, as far as it needs no running VM.
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "harness.h"

namespace agent_vm {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

class McpTest : public CliTest {
 protected:
  void SetUp() override { ASSERT_EQ(agent_vm({"create", "--name", "vm"}).code, 0); }
  json config() { return json::parse(read(state() + "/vm/config.json")); }
};

TEST_F(McpTest, ServersAreAddedChangedListedAndRemoved) {
  const Outcome added = agent_vm({"mcp", "add", "files", "vm", "--env", "A=b=c", "--cwd",
                                  "/workspace/x", "--", "mcp-server-filesystem", "--", "a b"});
  EXPECT_EQ(added.code, 0) << added.error;
  EXPECT_THAT(added.out, HasSubstr("at its next start"));
  const json server = config()["mcp"]["servers"]["files"];
  EXPECT_EQ(server["argv"], (json{"mcp-server-filesystem", "--", "a b"}));
  EXPECT_EQ(server["env"]["A"], "b=c");
  EXPECT_THAT(agent_vm({"mcp", "add", "files", "vm", "--", "other"}).out, HasSubstr("Changed"));
  EXPECT_THAT(agent_vm({"mcp", "list", "vm"}).out, HasSubstr("other"));
  // What was added by hand outlives an update; what no file and nobody named does not.
  EXPECT_EQ(agent_vm({"update", "vm"}).code, 0);
  EXPECT_TRUE(config()["mcp"]["servers"].contains("files"));
  EXPECT_EQ(agent_vm({"mcp", "remove", "files", "vm"}).code, 0);
  EXPECT_FALSE(config()["mcp"]["servers"].contains("files"));
  EXPECT_EQ(agent_vm({"mcp", "remove", "files", "vm"}).code, 5);
}

TEST_F(McpTest, BadServersAreRefused) {
  EXPECT_EQ(agent_vm({"mcp", "add", "files", "vm"}).code, 2);
  EXPECT_EQ(agent_vm({"mcp", "add", "workspace", "vm", "--", "x"}).code, 2);
  EXPECT_EQ(agent_vm({"mcp", "add", "a/b", "vm", "--", "x"}).code, 2);
  EXPECT_EQ(agent_vm({"mcp", "add", "files", "vm", "--env", "=x", "--", "x"}).code, 2);
  EXPECT_EQ(agent_vm({"mcp", "add", "files", "vm", "--cwd", "relative", "--", "x"}).code, 2);
  EXPECT_FALSE(config()["mcp"]["servers"].contains("files"));
}

TEST_F(McpTest, AServerOfAConfigurationFileIsRemovedThere) {
  shell("mkdir -p '" + home() + "/.config/agent-vm'");
  write(home() + "/.config/agent-vm/config.toml", "[mcp.servers.mine]\ncommand = [\"x\"]\n");
  ASSERT_EQ(agent_vm({"update", "vm"}).code, 0);
  const Outcome refused = agent_vm({"mcp", "remove", "mine", "vm"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.error, HasSubstr("comes from a configuration file"));
}

TEST_F(McpTest, AVmThatDoesNotRunIsSaidSo) {
  for (const char* verb : {"tools", "logs"}) {
    const Outcome outcome = agent_vm({"mcp", verb, "vm"});
    EXPECT_EQ(outcome.code, 3) << verb;
    EXPECT_THAT(outcome.error, HasSubstr("agent-vm start vm"));
  }
  EXPECT_EQ(agent_vm({"mcp", "call", "x", "vm", "--arguments", "[1]"}).code, 2);
  // npx would be run in the guest; what it does not understand is refused before that.
  const Outcome npx = agent_vm({"mcp", "add", "memory", "vm", "--", "npx", "-y", "some-server"});
  EXPECT_EQ(npx.code, 3);
  EXPECT_THAT(npx.error, HasSubstr("agent-vm start vm"));
  EXPECT_EQ(agent_vm({"mcp", "add", "m", "vm", "--", "npx", "git+ssh://x.example/y"}).code, 2);
  EXPECT_EQ(agent_vm({"mcp", "add", "workspace", "vm", "--", "npx", "-y", "some-server"}).code, 2);
  EXPECT_FALSE(config()["mcp"]["servers"].contains("memory"));
  // The control: npx itself is a command like any other.
  EXPECT_EQ(agent_vm({"mcp", "add", "m", "vm", "--", "/usr/bin/npx", "-y", "some-server"}).code, 0);
}

TEST_F(McpTest, EachClientGetsWhatItReadsAndNoToken) {
  const std::string token = read(state() + "/vm/mcp_token").substr(0, 64);
  const std::vector<std::string> argv{"--state-dir", state(), "mcp", "vm"};
  for (const auto& [client, member] :
       {std::pair("claude-code", "mcpServers"), std::pair("claude-desktop", "mcpServers"),
        std::pair("cursor", "mcpServers"), std::pair("vscode", "servers")}) {
    const Outcome outcome = agent_vm({"mcp", "config", "vm", "--client", client});
    ASSERT_EQ(outcome.code, 0) << outcome.error;
    const json entry = json::parse(outcome.out)[member]["agent-vm-vm"];
    EXPECT_EQ(entry["command"], "agent-vm") << client;
    EXPECT_EQ(entry["args"], json(argv)) << client;
    EXPECT_THAT(outcome.out, Not(HasSubstr(token)));
  }
  const Outcome codex = agent_vm({"mcp", "config", "vm", "--client", "codex"});
  EXPECT_THAT(codex.out, HasSubstr("[mcp_servers.\"agent-vm-vm\"]\ncommand = \"agent-vm\"\n"));
  EXPECT_EQ(agent_vm({"mcp", "config", "vm", "--client", "emacs"}).code, 2);
}

TEST_F(McpTest, AnEntryIsMergedIntoTheClientsFileAndNothingElseChanges) {
  const std::string file = repo() + "/.mcp.json";
  write(file, R"({"z": 1, "mcpServers": {"other": {"command": "x"}}})");
  ::chmod(file.c_str(), 0600);
  ASSERT_EQ(agent_vm({"mcp", "config", "vm", "--client", "claude-code", "--write"}).code, 0);
  const json merged = json::parse(read(file));
  EXPECT_EQ(merged["z"], 1);
  EXPECT_EQ(merged["mcpServers"]["other"]["command"], "x");
  EXPECT_EQ(merged["mcpServers"]["agent-vm-vm"]["type"], "stdio");
  struct stat info {};
  ::stat(file.c_str(), &info);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  // What cannot be read is left alone.
  write(file, "{ // a comment\n}");
  const Outcome refused = agent_vm({"mcp", "config", "vm", "--client", "claude-code", "--write"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_EQ(read(file), "{ // a comment\n}");

  ASSERT_EQ(agent_vm({"mcp", "config", "vm", "--client", "codex", "--write"}).code, 0);
  EXPECT_THAT(read(home() + "/.codex/config.toml"), HasSubstr("[mcp_servers.\"agent-vm-vm\"]"));
  EXPECT_EQ(agent_vm({"mcp", "config", "vm", "--client", "codex", "--write"}).code, 2);
}

}  // namespace
}  // namespace agent_vm

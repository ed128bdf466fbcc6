#include "config/settings.h"

#include <gmock/gmock.h>

namespace agent_vm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kWhole = R"(
[vm]
memory = "4G"
cpus = 3
disk = 32212254720
accel = "kvm"

[image]
variant = "build"
packages = ["clang", "g++"]
npm = ["@scope/name@1"]

[mcp]
default = "files"
allowed_origins = ["https://claude.ai", "http://localhost:3000"]

[mcp.servers.files]
command = ["npx", "server-filesystem", "/workspace"]
env = { LEVEL = "debug" }
cwd = "/workspace"
)";

Result<Settings> parse(std::string_view text) {
  return parse_settings(text, "agent-vm.toml", SettingsOwner::kRepository);
}
std::string refusal(std::string_view text) {
  const auto settings = parse(text);
  return settings ? "" : settings.error().message();
}

std::vector<std::string> names(const std::vector<Widening>& widenings) {
  std::vector<std::string> names;
  for (const auto& one : widenings) names.push_back(one.what);
  return names;
}

TEST(Settings, ReadsEverything) {
  const Settings settings = parse(kWhole).value();
  EXPECT_EQ(settings.memory_bytes, 4ULL << 30);
  EXPECT_EQ(settings.cpus, 3U);
  EXPECT_EQ(settings.disk_bytes, 30ULL << 30);
  EXPECT_EQ(settings.accel, Accel::kKvm);
  EXPECT_THAT(settings.packages, ElementsAre("clang", "g++"));
  EXPECT_EQ(settings.mcp_servers.at("files").environment.at("LEVEL"), "debug");
  EXPECT_THAT(settings.mcp_servers.at("files").argv,
              ElementsAre("npx", "server-filesystem", "/workspace"));
  EXPECT_EQ(settings.default_mcp_server, "files");
}

TEST(Settings, NamesLineAndColumnOfWhatIsBroken) {
  EXPECT_THAT(refusal("[vm]\nmemory = \n"), HasSubstr("agent-vm.toml:2:"));
  EXPECT_THAT(refusal("[vm]\nmemory = \n"), HasSubstr("not TOML"));
  EXPECT_THAT(refusal("[vm]\n  memory = true\n"), HasSubstr("agent-vm.toml:2:12: 'vm.memory'"));
  EXPECT_THAT(refusal("[vm]\nmemory = \"lots\"\n"), HasSubstr("agent-vm.toml:2:10: 'lots'"));
  EXPECT_THAT(refusal("[image]\npackages = [\"a1\",\n \"-o x\"]\n"), HasSubstr(":3:2: '-o x'"));
  EXPECT_THAT(refusal("[vm]\ncpus = 0\n"), HasSubstr("from 1 to 255"));
  EXPECT_THAT(refusal("vm = 3\n"), HasSubstr("must be a table"));
  EXPECT_THAT(refusal("[mcp.servers.x]\ncwd = \"/\"\n"), HasSubstr("has no 'command'"));
  EXPECT_THAT(refusal("[mcp.servers.x]\ncommand = []\n"), HasSubstr("is empty"));
  EXPECT_THAT(refusal("[mcp.servers.Files]\ncommand = [\"x\"]\n"), HasSubstr("only small letters"));
  EXPECT_THAT(refusal("[mcp.servers.workspace]\ncommand = [\"x\"]\n"), HasSubstr("built-in"));
  EXPECT_THAT(refusal("[mcp.servers.x]\ncommand = [\"x\"]\nenv = {\"A-B\" = \"\"}\n"),
              HasSubstr("environment variable"));
}

TEST(Settings, NamesTheNearestKnownKey) {
  EXPECT_THAT(refusal("[vm]\nmemroy = \"2G\"\n"),
              HasSubstr("agent-vm.toml:2:1: unknown key 'vm.memroy'; did you mean 'memory'?"));
  EXPECT_THAT(refusal("[images]\n"), HasSubstr("did you mean 'image'?"));
  EXPECT_THAT(refusal("[zzzzzz]\n"), HasSubstr("known here: vm, image, mcp"));
}

TEST(Settings, S30_ARepositoryCannotSetWhatIsTheOwners) {
  constexpr const char* kSudo = "[vm]\nsudo = true\n";
  EXPECT_THAT(refusal(kSudo), HasSubstr("only in the owner's own configuration"));
  EXPECT_EQ(parse_settings(kSudo, "config.toml", SettingsOwner::kOwner).value().sudo, true);
}

TEST(Settings, S30_NarrowingIsNoWidening) {
  VmConfig base;
  base.cpus = 4;
  const auto narrow = parse(R"(
[vm]
memory = "512M"
cpus = 1
disk = "5G"
accel = "kvm"
[mcp]
allowed_origins = []
)");
  EXPECT_THAT(widenings(narrow.value(), base), IsEmpty());
  apply(narrow.value(), base);
  EXPECT_EQ(base.memory_bytes, 512ULL << 20);
  EXPECT_THAT(base.allowed_origins, IsEmpty());
}

TEST(Settings, S30_EverythingThatWidensIsNamed) {
  VmConfig base;
  base.cpus = 2;
  const Settings settings = parse(kWhole).value();
  EXPECT_THAT(names(widenings(settings, base)),
              ElementsAre("memory", "disk", "cpus", "image variant", "package", "package",
                          "npm package", "MCP server files", "allowed origin"));
  // What is there already widens nothing.
  apply(settings, base);
  EXPECT_THAT(widenings(settings, base), IsEmpty());
  EXPECT_THAT(names(widenings(parse("[vm]\naccel = \"tcg\"\n").value(), base)),
              ElementsAre("accel"));
  // Another command under a known name is another server.
  EXPECT_THAT(names(widenings(parse("[mcp.servers.files]\ncommand = [\"sh\"]\n").value(), base)),
              ElementsAre("MCP server files"));
}

}  // namespace
}  // namespace agent_vm

#include "config/vm_config.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "config/names.h"

namespace agent_vm {
namespace {

using testing::HasSubstr;

VmConfig example() {
  VmConfig config;
  config.name = "repo-main";
  config.branch = "main";
  config.created_at = "2026-01-31T12:00:00Z";
  config.host = "localhost";
  config.port = 8000;
  config.ssh_port = 2222;
  config.workspace_path = "/state/repo-main/workspace";
  config.ssh_key_path = "/state/repo-main/ssh/id_ed25519";
  config.source_repo = "/home/u/repo";
  config.origin_repo = "https://example.org/r.git";
  config.image.packages = {"clang", "libssl-dev"};
  config.image.npm = {"@scope/name@1.2.3"};
  config.mcp_servers["fs"] = {{"npx", "server"}, {{"A", "b"}}, "/workspace"};
  config.default_mcp_server = "fs";
  return config;
}

// The message that validate() gives after `change`.
template <typename Change>
std::string refusal(Change change) {
  VmConfig config = example();
  change(config);
  const auto status = validate(config);
  return status ? "" : status.error().message();
}

TEST(VmConfig, SurvivesItsJson) {
  ASSERT_TRUE(validate(example()));
  EXPECT_EQ(parse_vm_config(to_json_text(example())).value(), example());
}

TEST(VmConfig, KeepsTheKeysThatScriptsRead) {
  const auto json = nlohmann::json::parse(to_json_text(example()));
  for (const auto* key : {"branch", "host", "port", "ssh_port", "workspace_path", "ssh_key_path",
                          "created_at", "origin_repo", "upstream_repo", "vm_name"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["host"], "localhost");
  EXPECT_EQ(json["port"], 8000);
}

TEST(VmConfig, F20_RefusesOtherSchemasWithTheReason) {
  auto json = nlohmann::json::parse(to_json_text(example()));
  json["schema"] = 2;
  EXPECT_THAT(parse_vm_config(json.dump()).error().message(), HasSubstr("newer agent-vm"));
  json["schema"] = 0;
  EXPECT_THAT(parse_vm_config(json.dump()).error().message(), HasSubstr("never existed"));
  json.erase("schema");
  EXPECT_THAT(parse_vm_config(json.dump()).error().message(), HasSubstr("names no schema"));
}

TEST(VmConfig, RefusesEveryTruncation) {
  const std::string text = to_json_text(example());
  for (std::size_t length = 0; length + 2 < text.size(); ++length) {
    EXPECT_FALSE(parse_vm_config(text.substr(0, length))) << length;
  }
}

TEST(VmConfig, RefusesEveryMissingKeyAndEveryWrongType) {
  const auto whole = nlohmann::json::parse(to_json_text(example()));
  for (const auto& [key, value] : whole.items()) {
    auto without = whole;
    without.erase(key);
    EXPECT_FALSE(parse_vm_config(without.dump())) << key;
    auto wrong = whole;
    wrong[key] = nullptr;
    EXPECT_FALSE(parse_vm_config(wrong.dump())) << key;
  }
}

TEST(VmConfig, NamesTheNearestKnownKey) {
  auto json = nlohmann::json::parse(to_json_text(example()));
  json["memory_byte"] = 1;
  EXPECT_THAT(parse_vm_config(json.dump()).error().message(),
              HasSubstr("did you mean 'memory_bytes'?"));
}

TEST(VmConfig, RefusesWhatCannotWork) {
  EXPECT_THAT(refusal([](auto& c) { c.memory_bytes = 1; }), HasSubstr("memory 1 B is too small"));
  EXPECT_THAT(refusal([](auto& c) { c.disk_bytes = 1; }), HasSubstr("disk 1 B"));
  EXPECT_THAT(refusal([](auto& c) { c.cpus = 0; }), HasSubstr("cpus 0"));
  EXPECT_THAT(refusal([](auto& c) { c.port = 0; }), HasSubstr("port is 0"));
  EXPECT_THAT(refusal([](auto& c) { c.port = c.ssh_port; }), HasSubstr("both MCP and SSH"));
  EXPECT_THAT(refusal([](auto& c) { c.branch = "a\nb"; }), HasSubstr("a\\x0ab"));
  EXPECT_THAT(refusal([](auto& c) { c.workspace_path = "w"; }), HasSubstr("absolute"));
  EXPECT_THAT(refusal([](auto& c) { c.default_mcp_server = "x"; }), HasSubstr("not configured"));
  EXPECT_THAT(refusal([](auto& c) { c.mcp_servers["workspace"] = {{"x"}}; }),
              HasSubstr("built-in"));
  EXPECT_THAT(refusal([](auto& c) { c.mcp_servers["fs"].argv.clear(); }), HasSubstr("empty"));
  EXPECT_THAT(refusal([](auto& c) { c.allowed_origins = {"https://a/b"}; }), HasSubstr("origin"));
  EXPECT_THAT(refusal([](auto& c) { c.image.packages = {"-oDpkg=x"}; }), HasSubstr("package"));
}

TEST(VmConfig, RefusesWhatTheHostDoesNotHave) {
  const HostResources host{4ULL << 30, 2};
  VmConfig config = example();
  config.cpus = 2;
  EXPECT_TRUE(validate_for_host(config, host));
  config.memory_bytes = 10ULL << 40;
  EXPECT_THAT(validate_for_host(config, host).error().message(),
              HasSubstr("memory 10 TiB is more than this machine has (4 GiB)"));
  config = example();
  config.cpus = 3;
  EXPECT_THAT(validate_for_host(config, host).error().message(), HasSubstr("cpus 3"));
}

TEST(VmName, RefusesWhatIsNoFileNameOrHostName) {
  for (const std::string& good :
       std::vector<std::string>{"a", "repo-main", "Repo_1.2-x", std::string(63, 'a')}) {
    EXPECT_TRUE(valid_vm_name(good)) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("a/b"), std::string(".."), std::string("a..b"),
        std::string("a\nb"), std::string(".hidden"), std::string("-x"), std::string("trash"),
        std::string("a.lock"), std::string("a."), std::string(300, 'a'), std::string("a\0b", 3),
        std::string("caf\xC3\xA9")}) {
    EXPECT_FALSE(valid_vm_name(bad)) << bad;
  }
}

TEST(VmName, IsMadeFromAnyRepositoryAndBranch) {
  EXPECT_EQ(make_vm_name("repo", "main"), "repo-main");
  EXPECT_EQ(make_vm_name("repo", "feature/x"), "repo-feature-x");
  EXPECT_EQ(make_vm_name(".dot files", "a"), "dot-files-a");
  for (const std::string& awkward :
       {std::string(200, 'b'), std::string("a..b"), std::string("x."), std::string("x.lock"),
        std::string("\xC3\xA9"), std::string()}) {
    EXPECT_TRUE(valid_vm_name(make_vm_name("repo", awkward))) << make_vm_name("repo", awkward);
    EXPECT_TRUE(valid_vm_name(make_vm_name(awkward, ""))) << make_vm_name(awkward, "");
  }
  EXPECT_NE(make_vm_name("r", std::string(200, 'b') + "1"),
            make_vm_name("r", std::string(200, 'b') + "2"));
}

TEST(NpmSpec, RefusesUrlsPathsAndOptions) {
  for (const auto* good : {"typescript", "@scope/name", "name@1.2.3", "@s/n@^2", "a@latest"}) {
    EXPECT_TRUE(valid_npm_spec(good)) << good;
  }
  for (const auto* bad : {"", "-g", "--x", "../x", "/x", "git+ssh://h/x", "a@file:x", "a@npm:b",
                          "@scope", "a b", "https://h/x.tgz", "a@"}) {
    EXPECT_FALSE(valid_npm_spec(bad)) << bad;
  }
}

TEST(Origin, IsSchemeHostAndPortOnly) {
  for (const auto* good :
       {"https://claude.ai", "http://localhost:3000", "http://[::1]:80", "https://127.0.0.1"}) {
    EXPECT_TRUE(valid_origin(good)) << good;
  }
  for (const auto* bad : {"", "*", "null", "claude.ai", "https://", "https://a/", "https://a@b",
                          "https://a:0", "https://a:b", "ftp://a", "https://a b"}) {
    EXPECT_FALSE(valid_origin(bad)) << bad;
  }
}

TEST(Port, IsANumberFrom1To65535) {
  EXPECT_EQ(parse_port("8000", "port"), 8000);
  for (const auto* bad : {"0", "70000", "-1", "", "80x", "99999999999999999999"}) {
    EXPECT_FALSE(parse_port(bad, "port")) << bad;
  }
}

}  // namespace
}  // namespace agent_vm

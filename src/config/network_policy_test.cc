#include "config/network_policy.h"

#include <gmock/gmock.h>

#include "config/ip_range.h"
#include "config/settings.h"

namespace agent_vm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(NetworkRule, IsWrittenAsPeopleWriteIt) {
  const auto rule = parse_network_rule("GET,HEAD *.Files.example.org/public/* in 10.1.0.0/16");
  ASSERT_TRUE(rule) << rule.error().message();
  EXPECT_THAT(rule->methods, ElementsAre("GET", "HEAD"));
  EXPECT_EQ(rule->host, "*.files.example.org");
  EXPECT_EQ(rule->path, "/public/*");
  EXPECT_EQ(rule->range, "10.1.0.0/16");
  EXPECT_EQ(parse_network_rule("api.example.org")->host, "api.example.org");
}

TEST(NetworkRule, S17_RefusesWhatCouldBeMisread) {
  for (const auto* text : {"",
                           "*",
                           "*.org.",
                           "org",
                           "localhost",
                           "127.0.0.1",
                           "0x7f.1",
                           "1.2",
                           "[::1]",
                           "https://ok.example",
                           "ok.example:443",
                           "*ok.example",
                           "a.*.example",
                           "ok..example",
                           "b\u00fccher.example",
                           "get ok.example",
                           "GET POST ok.example",
                           "ok.example/a?b",
                           "ok.example/%2e",
                           "ok.example\n",
                           "ok.example in 10.0.0.1/8",
                           "ok.example in all"}) {
    EXPECT_FALSE(parse_network_rule(text)) << text;
  }
  EXPECT_FALSE(valid_network_entry("@everything"));
  EXPECT_TRUE(valid_network_entry("@npm"));
}

TEST(IpRange, HasNoBitsBehindThePrefix) {
  EXPECT_TRUE(parse_ip_range("10.0.0.0/8")->contains(0x0A010203));
  EXPECT_FALSE(parse_ip_range("10.0.0.0/8")->contains(0x0B000000));
  EXPECT_TRUE(parse_ip_range("0.0.0.0/0")->contains(0xFFFFFFFF));
  for (const auto* text : {"10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0", "::1", "", "/8"})
    EXPECT_FALSE(parse_ip_range(text)) << text;
  for (const auto& range : refused_ranges()) EXPECT_TRUE(parse_ip_range(range)) << range;
}

TEST(NetworkSettings, S30_WhatARepositoryWidensIsNamed) {
  const auto settings = parse_settings(
      "[network]\nmode = \"monitor\"\nallow = [\"evil.example\"]\ndeny = [\"@npm\"]\n",
      "agent-vm.toml", SettingsOwner::kRepository);
  ASSERT_TRUE(settings) << settings.error().message();
  VmConfig base;
  base.network.mode = NetworkMode::kAllowlist;
  const auto found = widenings(*settings, base);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].to, "monitor");
  EXPECT_EQ(found[1].to, "evil.example");
  // What narrows is no widening.
  const auto narrow =
      parse_settings("[network]\nmode = \"off\"\n", "agent-vm.toml", SettingsOwner::kRepository);
  EXPECT_THAT(widenings(*narrow, base), testing::IsEmpty());
}

TEST(NetworkSettings, ARepositoryMayTakeTheDefaultRulesAway) {
  const VmConfig base;
  EXPECT_EQ(base.network.mode, NetworkMode::kAllowlist);
  EXPECT_THAT(base.network.allow, testing::Contains("@npm"));
  const auto narrow = parse_settings("[network]\ndefaults = false\nallow = [\"@git-origin\"]\n",
                                     "agent-vm.toml", SettingsOwner::kRepository);
  ASSERT_TRUE(narrow) << narrow.error().message();
  EXPECT_THAT(widenings(*narrow, base), testing::IsEmpty());
  VmConfig config = base;
  apply(*narrow, config);
  EXPECT_THAT(config.network.allow, testing::ElementsAre("@git-origin"));
}

TEST(SecretSettings, S30_OnlyTheOwnerHasSecrets) {
  constexpr const char* kText =
      "[secrets.TOKEN]\ncommand = [\"pass\", \"x\"]\nhosts = [\"api.example.org\"]\n";
  const auto refused = parse_settings(kText, "agent-vm.toml", SettingsOwner::kRepository);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("only in the owner's own configuration"));
  const auto taken = parse_settings(kText, "config.toml", SettingsOwner::kOwner);
  ASSERT_TRUE(taken) << taken.error().message();
  EXPECT_EQ(taken->secrets.at("TOKEN").header, "Authorization");
  for (const auto* text :
       {"[secrets.TOKEN]\nenv = \"A\"\n", "[secrets.TOKEN]\nhosts = [\"a.example\"]\n",
        "[secrets.TOKEN]\nenv = \"A\"\nfile = \"/b\"\nhosts = [\"a.example\"]\n",
        "[secrets.TOKEN]\nenv = \"A\"\nhosts = [\"GET a.example/x\"]\n",
        "[secrets.TOKEN]\nenv = \"A\"\nhosts = [\"a.example\"]\nheader = \"X: y\"\n",
        "[secrets.\"A-B\"]\nenv = \"A\"\nhosts = [\"a.example\"]\n"})
    EXPECT_FALSE(parse_settings(text, "config.toml", SettingsOwner::kOwner)) << text;
}

TEST(NetworkSettings, S15_OnlyTheOwnerOpensAPrivateRange) {
  constexpr const char* kText = "[network]\nallow = [\"git.corp.example in 10.0.0.0/8\"]\n";
  const auto refused = parse_settings(kText, "agent-vm.toml", SettingsOwner::kRepository);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("agent-vm.toml:2:"));
  EXPECT_TRUE(parse_settings(kText, "config.toml", SettingsOwner::kOwner));
}

}  // namespace
}  // namespace agent_vm

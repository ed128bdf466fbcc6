#include "launch/package_sources.h"

#include <gmock/gmock.h>

#include "launch/presets.h"

namespace agent_vm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

PackageSources example() {
  PackageSources sources;
  sources.apt = {{.uri = "http://mirror.example/debian",
                  .suite = "bookworm",
                  .components = {"main"},
                  .options = {{"Signed-By", "/usr/share/keyrings/x.gpg"}}}};
  sources.apt_settings = "Acquire::Check-Valid-Until \"false\";\n";
  sources.npm = "https://packages.example/npm/";
  sources.npm_scopes = {{"@corp", "https://corp.example/"}};
  sources.pip = "https://packages.example/pip/simple";
  sources.pip_hosts = {"files.example"};
  return sources;
}

TEST(PackageSources, APresetAllowsToFetchAndNotToPublish) {
  EXPECT_THAT(*expand_preset("@apt", {}, example()),
              ElementsAre("GET,HEAD mirror.example/debian/*"));
  EXPECT_THAT(
      *expand_preset("@npm", {}, example()),
      ElementsAre("GET,HEAD packages.example", "POST packages.example/npm/-/npm/v1/security/*",
                  "GET,HEAD corp.example", "POST corp.example/-/npm/v1/security/*"));
  EXPECT_THAT(*expand_preset("@pip", {}, example()),
              ElementsAre("GET,HEAD files.example", "GET,HEAD packages.example"));
  EXPECT_FALSE(expand_preset("@everything", {}, example()));
}

TEST(PackageSources, WhatIsNotKnownOrNoRuleAllowsNothing) {
  for (const auto* preset : {"@apt", "@npm", "@pip", "@git-origin"})
    EXPECT_THAT(*expand_preset(preset, {}, {}), IsEmpty()) << preset;
  PackageSources local;
  local.npm = "http://localhost:4873/";
  local.pip = "http://127.0.0.1/simple";
  EXPECT_THAT(*expand_preset("@npm", {}, local), IsEmpty());
  EXPECT_THAT(*expand_preset("@pip", {}, local), IsEmpty());
}

TEST(PackageSources, S20_NoPasswordOfARegistryLeavesTheHost) {
  EXPECT_EQ(plain_url("https://ann:geheim@packages.example:8443/npm/"),
            "https://packages.example:8443/npm/");
  EXPECT_EQ(plain_url("https://packages.example/@scope/"), "https://packages.example/@scope/");
  for (const auto* text : {"", "ftp://packages.example/", "file:///etc", "https://", "https://x y/",
                           "https://x/\nregistry=https://evil/", "https://x/?token=geheim"})
    EXPECT_EQ(plain_url(text), "") << text;
}

TEST(PackageSources, TheGuestsProgramsAreTold) {
  const auto settings = guest_package_settings(example());
  EXPECT_THAT(settings["apt_sources"], HasSubstr("URIs: http://mirror.example/debian\n"));
  EXPECT_THAT(settings["npm"], HasSubstr("registry=https://packages.example/npm/\n"));
  EXPECT_THAT(settings["npm"], HasSubstr("@corp:registry=https://corp.example/\n"));
  EXPECT_THAT(settings["pip"], HasSubstr("index-url = https://packages.example/pip/simple\n"));
  EXPECT_THAT(guest_package_settings({})["npm"], Not(HasSubstr("registry")));
}

TEST(PackageSources, GitMayFetchAndNotPush) {
  EXPECT_THAT(
      git_fetch_rules("https://u:p@git.example/a/b.git/"),
      ElementsAre("GET git.example/a/b/info/refs", "POST git.example/a/b/git-upload-pack",
                  "GET git.example/a/b.git/info/refs", "POST git.example/a/b.git/git-upload-pack"));
  EXPECT_THAT(git_fetch_rules("git@git.example:a/b.git"), IsEmpty());
}

}  // namespace
}  // namespace agent_vm

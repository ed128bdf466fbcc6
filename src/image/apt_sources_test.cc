#include "image/apt_sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "image/host_settings.h"

namespace agent_vm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(OneLineSources, ReadsOptionsAndSkipsWhatIsNoRepository) {
  const auto sources = parse_one_line_sources(
      "# a comment\n"
      "deb [arch=amd64 signed-by=/usr/share/keyrings/d.gpg trusted=yes] http://mirror.test/debian/ "
      "bookworm main contrib # more\n"
      "deb-src http://mirror.test/debian bookworm main\n"
      "deb cdrom:[Debian GNU/Linux 12]/ bookworm main\n"
      "\n"
      "deb\thttp://mirror.test/security\tbookworm-security\tmain\n",
      "sources.list");
  ASSERT_TRUE(sources) << sources.error().message();
  ASSERT_EQ(sources->size(), 2U);
  const AptSource& first = sources->front();
  EXPECT_EQ(first.uri, "http://mirror.test/debian");
  EXPECT_EQ(first.suite, "bookworm");
  EXPECT_THAT(first.components, ElementsAre("main", "contrib"));
  EXPECT_EQ(first.options.at("Signed-By"), "/usr/share/keyrings/d.gpg");
  EXPECT_EQ(first.options.at("Trusted"), "yes");
  EXPECT_FALSE(first.options.contains("arch"));
}

TEST(OneLineSources, BrokenLinesAreNamed) {
  for (const char* bad : {"rpm http://mirror.test a b", "deb [signed-by=/k http://mirror.test a b",
                          "deb http://mirror.test", "deb [trusted] http://mirror.test a b"}) {
    const auto sources = parse_one_line_sources(std::string("\n") + bad + "\n", "x.list");
    ASSERT_FALSE(sources) << bad;
    EXPECT_THAT(sources.error().message(), HasSubstr("x.list:2"));
  }
}

TEST(Deb822Sources, EveryUriAndSuiteIsOne) {
  const auto sources = parse_deb822_sources(
      "Types: deb deb-src\n"
      "# a comment inside\n"
      "URIs: http://a.test/debian http://b.test/debian\n"
      "Suites: bookworm bookworm-updates\n"
      "Components: main\n"
      "Signed-By:\n"
      " -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
      " .\n"
      " mQINBF\n"
      " -----END PGP PUBLIC KEY BLOCK-----\n"
      "\n"
      "Types: deb\n"
      "Enabled: no\n"
      "URIs: http://c.test\n"
      "Suites: bookworm\n"
      "Components: main\n"
      "\n"
      "Types: deb-src\nURIs: http://d.test\nSuites: bookworm\nComponents: main\n",
      "debian.sources");
  ASSERT_TRUE(sources) << sources.error().message();
  ASSERT_EQ(sources->size(), 4U);
  EXPECT_EQ(sources->at(1).suite, "bookworm-updates");
  EXPECT_EQ(sources->at(2).uri, "http://b.test/debian");
  EXPECT_THAT(sources->at(0).options.at("Signed-By"), HasSubstr("\n mQINBF\n"));
  // What is written is what was read.
  const auto again = parse_deb822_sources(to_deb822(*sources), "again");
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, *sources);
}

TEST(Deb822Sources, BrokenLinesAreNamed) {
  EXPECT_FALSE(parse_deb822_sources(" continued\n", "x.sources"));
  const auto sources = parse_deb822_sources("Types: deb\nnonsense\n", "x.sources");
  ASSERT_FALSE(sources);
  EXPECT_THAT(sources.error().message(), HasSubstr("x.sources:2"));
}

AptSource source(std::string uri, std::string suite, std::string component = "main") {
  return {.uri = std::move(uri), .suite = std::move(suite), .components = {std::move(component)}};
}

TEST(DebianSources, TakesDebianAndLeavesStrangers) {
  const auto chosen = debian_sources(
      {source("http://m.test/debian", "bookworm"),
       source("http://m.test/debian", "bookworm-updates"),
       source("http://m.test/debian", "bookworm-backports"),
       source("http://m.test/security", "bookworm-security"),
       source("http://docker.test/linux", "bookworm", "stable"),
       source("http://node.test", "nodistro"), source("http://m.test/debian", "bookworm")},
      "bookworm");
  ASSERT_TRUE(chosen) << chosen.error().message();
  std::vector<std::string> suites;
  for (const auto& s : *chosen) suites.push_back(s.uri + " " + s.suite);
  EXPECT_THAT(suites,
              ElementsAre("http://m.test/debian bookworm", "http://m.test/debian bookworm-updates",
                          "http://m.test/security bookworm-security"));
}

TEST(DebianSources, AnotherReleaseOfTheHostServesToo) {
  const auto chosen = debian_sources({source("http://m.test/debian", "trixie"),
                                      source("http://m.test/security", "trixie-security"),
                                      source("http://m.test/old", "bullseye/updates")},
                                     "bookworm");
  ASSERT_TRUE(chosen);
  ASSERT_EQ(chosen->size(), 3U);
  EXPECT_EQ(chosen->at(0).suite, "bookworm");
  EXPECT_EQ(chosen->at(1).suite, "bookworm-security");
  EXPECT_EQ(chosen->at(2).suite, "bookworm-security");
}

TEST(DebianSources, NoneIsAnErrorThatSaysWhatToDo) {
  const auto chosen = debian_sources({source("http://u.test/ubuntu", "jammy")}, "bookworm");
  ASSERT_FALSE(chosen);
  EXPECT_EQ(chosen.error().kind(), ErrorKind::kMissing);
  EXPECT_THAT(chosen.error().hint(), HasSubstr("bookworm"));
}

TEST(AptNetworkSettings, KeepsProxiesAndDropsHooks) {
  const std::string kept = apt_network_settings(
      "DPkg::Post-Invoke:: \"rm -rf /\";\n"
      "APT::Update::Post-Invoke-Success:: \"gdbus call\";\n"
      "Acquire::http::Proxy \"http://proxy.test:3128\";\n"
      "Acquire::Check-Valid-Until \"false\";\n"
      "Acquire::IndexTargets::deb::DEP-11 \"\";\n"
      "Dir::Etc \"etc/apt\";\n");
  EXPECT_EQ(kept,
            "Acquire::http::Proxy \"http://proxy.test:3128\";\n"
            "Acquire::Check-Valid-Until \"false\";\n");
}

}  // namespace
}  // namespace agent_vm

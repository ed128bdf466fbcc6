#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>

#include "os/files.h"
#include "supervise/boot_profile.h"
#include "supervise/capped_log.h"
#include "supervise/git_broker.h"
#include "supervise/git_door.h"
#include "supervise/identity_document.h"

namespace agent_vm {
namespace {

class CappedLogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/capped_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    path_ = path;
    dir_ = open_directory(path_).value();
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  std::string path_;
  Fd dir_;
};

TEST_F(CappedLogTest, S23_AFloodKeepsTwoFilesOfTheCap) {
  CappedLog log(dir_.get(), "console.log", 10'000);
  for (int i = 0; i < 1000; ++i) log.append(std::string(997, 'y') + "\r\n");
  EXPECT_THAT(list_directory(dir_.get()).value(),
              testing::ElementsAre("console.log", "console.log.1"));
  EXPECT_LE(std::filesystem::file_size(path_ + "/console.log"), 10'000U);
  EXPECT_LE(std::filesystem::file_size(path_ + "/console.log.1"), 10'000U);
  EXPECT_LE(log.tail(1000).size(), 100U);
}

TEST_F(CappedLogTest, KeepsTheTailInMemory) {
  CappedLog log(dir_.get(), "console.log", 10'000);
  log.append("one\ntw");
  log.append("o\nthree");
  EXPECT_THAT(log.tail(2), testing::ElementsAre("two", "three"));
}

TEST_F(CappedLogTest, StartsAnewAndKeepsTheLastRuns) {
  CappedLog(dir_.get(), "console.log", 10'000).append("first run\n");
  CappedLog(dir_.get(), "console.log", 10'000).append("second run\n");
  EXPECT_EQ(read_file(path_ + "/console.log", 100), "second run\n");
  EXPECT_EQ(read_file(path_ + "/console.log.1", 100), "first run\n");
}

TEST(IdentityDocument, HostNamesAreWhatDnsTakes) {
  EXPECT_EQ(hostname_for("shop-feature_x.2"), "shop-feature-x-2");
  EXPECT_EQ(hostname_for("--.."), "agent-vm");
  EXPECT_EQ(hostname_for(std::string(100, 'a')).size(), 63U);
}

TEST(IdentityDocument, S21_TheGatewayTrustsTheForwardedPortsNamesOnly) {
  VmConfig config;
  config.host = "localhost";
  config.bind_address = "127.0.0.1";
  config.port = 8007;
  config.mcp_servers["fs"] = {.argv = {"mcp-server-filesystem", "/workspace"}};
  const auto document = make_mcp_config(config);
  EXPECT_EQ(document["allowed_hosts"],
            (nlohmann::json{"localhost:8007", "127.0.0.1:8007", "localhost:80"}));
  EXPECT_EQ(document["allowed_origins"], nlohmann::json{"https://claude.ai"});
  EXPECT_EQ(document["servers"]["fs"]["cwd"], "/workspace");
}

TEST(BootProfile, NamesTheSlowestServicesByTheirBeginning) {
  const auto profile = parse_boot_profile(
      "Kernel=1500000\n"
      "UserspaceTimestampMonotonic=2500000\n"
      "Id=late.service\nInactiveExitTimestampMonotonic=4000000\nActiveEnterTimestampMonotonic="
      "4300000\n"
      "\n"
      "Id=early.service\nInactiveExitTimestampMonotonic=3000000\nActiveEnterTimestampMonotonic="
      "3900000\n"
      "\n"
      "Id=never.service\nInactiveExitTimestampMonotonic=0\nActiveEnterTimestampMonotonic=0\n");
  EXPECT_EQ(profile["kernel_ms"], 1500.0);
  EXPECT_EQ(profile["userspace_ms"], 2500.0);
  ASSERT_EQ(profile["units"].size(), 2U);
  EXPECT_EQ(profile["units"][0]["name"], "early.service");
  EXPECT_EQ(profile["units"][1]["ms"], 300.0);
}

TEST(BootProfile, S24_KeepsLittleOfWhatAGuestPrints) {
  std::string flood = "Kernel=99999999999999999999999\n";
  for (int i = 0; i < 1000; ++i) {
    flood += "Id=" + std::string(1000, 'x') + "\nInactiveExitTimestampMonotonic=1\n" +
             "ActiveEnterTimestampMonotonic=" + std::to_string(i + 2) + "\n\n";
  }
  const auto profile = parse_boot_profile(flood);
  EXPECT_EQ(profile["kernel_ms"], 0.0);
  EXPECT_EQ(profile["units"].size(), 12U);
  EXPECT_LE(profile["units"][0]["name"].get<std::string>().size(), 60U);
}

TEST(GitDoor, ReadsOnlyWhatIsExactlyARequest) {
  std::string version;
  const auto good = parse_git_line(
      R"({"service":"git-receive-pack","user":"git","host":"Git.Example.org","port":"22",)"
      R"("path":"/team/app.git","version":"version=2"})",
      version);
  ASSERT_TRUE(good);
  EXPECT_TRUE(good->push);
  EXPECT_EQ(good->host, "git.example.org");
  EXPECT_EQ(version, "version=2");
  for (
      const auto* line :
      {"", "[]", "{}", R"({"service":"sh","user":"git","host":"a.b","port":"22","path":"/x"})",
       R"({"service":"git-upload-pack","user":"git","host":"a.b","port":22,"path":"/x"})",
       R"({"service":"git-upload-pack","user":"git","host":"a.b","port":"22","path":"/x'y"})",
       R"({"service":"git-upload-pack","user":"-x","host":"a.b","port":"22","path":"/x"})",
       R"({"service":"git-upload-pack","user":"git","host":"a","port":"22","path":"/x"})",
       R"({"service":"git-upload-pack","user":"g","host":"a.b","port":"1","path":"x","version":"0"})"}) {
    EXPECT_FALSE(parse_git_line(line, version)) << line;
  }
}

TEST(GitBroker, SshIsAskedForNothingButTheOneProgram) {
  const auto request = parse_git_url("ssh://ann@git.example.org:2222/team/app.git", true);
  const auto argv = git_ssh_command(request.value(), "/nonexistent");
  EXPECT_THAT(argv, testing::IsSupersetOf({"BatchMode=yes", "StrictHostKeyChecking=yes",
                                           "ForwardAgent=no", "ClearAllForwardings=yes",
                                           "UserKnownHostsFile=/nonexistent/.ssh/known_hosts"}));
  EXPECT_THAT(std::vector<std::string>(argv.end() - 7, argv.end()),
              testing::ElementsAre("-p", "2222", "-l", "ann", "--", "git.example.org",
                                   "git-receive-pack '/team/app.git'"));
}

}  // namespace
}  // namespace agent_vm

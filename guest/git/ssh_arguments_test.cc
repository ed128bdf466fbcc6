#include "git/ssh_arguments.h"

#include <gmock/gmock.h>

namespace agent_vm {
namespace {

TEST(SshArguments, TakesWhatGitSays) {
  const auto fetch =
      parse_ssh_arguments({"-o", "SendEnv=GIT_PROTOCOL", "-p", "2222", "ann@git.example.org",
                           "git-upload-pack '/team/app.git'"});
  ASSERT_TRUE(fetch);
  EXPECT_EQ(fetch->user, "ann");
  EXPECT_EQ(fetch->host, "git.example.org");
  EXPECT_EQ(fetch->port, "2222");
  EXPECT_EQ(fetch->service, "git-upload-pack");
  EXPECT_EQ(fetch->path, "/team/app.git");
  const auto push = parse_ssh_arguments({"git.example.org", "git-receive-pack 'app'"});
  ASSERT_TRUE(push);
  EXPECT_EQ(push->user, "git");
  EXPECT_EQ(push->port, "22");
  EXPECT_EQ(push->service, "git-receive-pack");
  EXPECT_EQ(push->path, "app");
}

TEST(SshArguments, RefusesWhatIsNotGit) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{},
                                             {"git.example.org"},
                                             {"git.example.org", "ls"},
                                             {"git.example.org", "git-upload-archive 'app'"},
                                             {"git.example.org", "git-upload-pack 'a b'"},
                                             {"-D", "1080", "git.example.org", "x"},
                                             {"-p"}}) {
    EXPECT_FALSE(parse_ssh_arguments(arguments)) << testing::PrintToString(arguments);
  }
}

}  // namespace
}  // namespace agent_vm

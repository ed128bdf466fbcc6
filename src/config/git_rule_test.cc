#include "config/git_rule.h"

#include <gmock/gmock.h>

namespace agent_vm {
namespace {

GitRequest request(const char* url, bool push = false) {
  return parse_git_url(url, push).value();
}

TEST(GitRule, SaysWhatItAllows) {
  EXPECT_TRUE(valid_network_entry("fetch ssh://git@git.example.org/team/app"));
  EXPECT_TRUE(valid_network_entry("push ssh://git.example.org:2222/team/*"));
  for (const char* text :
       {"fetch ssh://localhost/app", "fetch ssh://10.0.0.1/app", "fetch git.example.org/app",
        "fetch ssh://git.example.org/", "fetch ssh://git.example.org",
        "fetch ssh://git.example.org/../x", "fetch ssh://git.example.org/~ann/x",
        "fetch ssh://git.example.org/a//b", "fetch ssh://git.example.org/-x",
        "fetch ssh://-oProxyCommand=x@git.example.org/app", "fetch ssh://git.example.org:0/app",
        "fetch ssh://git.example.org:70000/app", "push ssh://git.example.org/a'b",
        "push ssh://git.example.org/a b"}) {
    EXPECT_FALSE(valid_network_entry(text)) << text;
  }
}

TEST(GitRule, DecidesByServiceRepositoryAndWhoSaidIt) {
  NetworkPolicy policy;
  policy.allow = {"@npm", "fetch ssh://git@git.example.org/team/app",
                  "push ssh://git@git.example.org/own/*"};
  const auto allowed = [&](const char* url, bool push) {
    return decide(policy, request(url, push)).allowed;
  };
  EXPECT_TRUE(allowed("ssh://git@git.example.org/team/app.git", false));
  EXPECT_TRUE(allowed("ssh://git.EXAMPLE.org/team/app", false));
  EXPECT_FALSE(allowed("ssh://git@git.example.org/team/app", true));
  EXPECT_TRUE(allowed("ssh://git@git.example.org/own/a/b.git", false));
  EXPECT_TRUE(allowed("ssh://git@git.example.org/own/a/b.git", true));
  for (const char* other :
       {"ssh://ann@git.example.org/team/app", "ssh://git@git.example.org:23/team/app",
        "ssh://git@example.org/team/app", "ssh://git@git.example.org/team/app2",
        "ssh://git@git.example.org/x/team/app"}) {
    EXPECT_FALSE(allowed(other, false)) << other;
  }
  policy.deny = {"push ssh://git@git.example.org/own/secret"};
  EXPECT_FALSE(allowed("ssh://git@git.example.org/own/secret", true));
  EXPECT_TRUE(allowed("ssh://git@git.example.org/own/secret", false));
  policy.owner_deny = {"fetch ssh://git@git.example.org/own/*"};
  EXPECT_FALSE(allowed("ssh://git@git.example.org/own/a", true));
  EXPECT_FALSE(allowed("ssh://git@git.example.org/own/a", false));
  // Only the mode `off` has a say: no other makes up for a rule.
  policy = {.mode = NetworkMode::kMonitor, .allow = {}};
  EXPECT_EQ(decide(policy, request("ssh://git.example.org/a")).rule, "mode monitor");
  EXPECT_FALSE(allowed("ssh://git.example.org/a", false));
  policy = {.mode = NetworkMode::kOff, .allow = {"fetch ssh://git.example.org/*"}};
  EXPECT_FALSE(allowed("ssh://git.example.org/a", false));
}

TEST(GitRule, IsWhatARefusedRequestProposes) {
  EXPECT_EQ(request("ssh://git.example.org/team/app.git").as_rule(),
            "fetch ssh://git@git.example.org/team/app");
  EXPECT_EQ(request("ssh://ann@git.example.org:2222/team/app", true).as_rule(),
            "push ssh://ann@git.example.org:2222/team/app");
}

TEST(GitRule, ARequestWithAnythingToMisreadIsNone) {
  GitRequest good = request("ssh://git.example.org/team/app");
  EXPECT_TRUE(validate(good));
  const auto with = [&](auto change) {
    GitRequest bad = good;
    change(bad);
    return validate(bad).has_value();
  };
  EXPECT_FALSE(with([](GitRequest& r) { r.path = "a';id'"; }));
  EXPECT_FALSE(with([](GitRequest& r) { r.path = "--upload-pack=x"; }));
  EXPECT_FALSE(with([](GitRequest& r) { r.path = "a/*"; }));
  EXPECT_FALSE(with([](GitRequest& r) { r.user = "-l"; }));
  EXPECT_FALSE(with([](GitRequest& r) { r.host = "-oProxyCommand=x.y"; }));
  EXPECT_FALSE(with([](GitRequest& r) { r.host = "127.0.0.1"; }));
  EXPECT_FALSE(with([](GitRequest& r) { r.port = 0; }));
}

}  // namespace
}  // namespace agent_vm

#include "http/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "http/route.h"

namespace agent_vm::http {
namespace {

OriginPolicy origins() {
  return *OriginPolicy::make({"https://claude.ai", "http://localhost:6274"});
}

TEST(OriginPolicy, AllowsTheListedOnesAndAnAbsentOne) {
  EXPECT_TRUE(origins().allows(std::nullopt));
  EXPECT_TRUE(origins().allows("https://claude.ai"));
  EXPECT_TRUE(origins().allows("https://CLAUDE.ai:443"));
  EXPECT_TRUE(origins().allows("http://localhost:6274"));
}

TEST(OriginPolicy, S21_RefusesLookAlikes) {
  for (const char* origin :
       {"null", "", "https://claude.ai.evil.example", "https://evilclaude.ai", "http://claude.ai",
        "https://claude.ai:8443", "https://claude.ai/", "https://claude.ai@evil.example",
        "https://claude.ai#x", "https://user@claude.ai", "claude.ai", "//claude.ai",
        "https://claude.ai:443:443", "http://localhost", "http://localhost:6275", "*",
        "https://claude.ai https://evil.example", "https://claude.ai:0443x", "https://"}) {
    EXPECT_FALSE(origins().allows(origin)) << origin;
  }
}

TEST(OriginPolicy, RefusesAConfigurationThatIsNoOrigin) {
  for (const char* origin : {"*", "null", "claude.ai", "https://claude.ai/path", "https://*.ai"}) {
    const auto policy = OriginPolicy::make({origin});
    ASSERT_FALSE(policy) << origin;
    EXPECT_THAT(policy.error().message(), testing::HasSubstr(origin));
  }
}

TEST(HostPolicy, NameWithAndWithoutPort) {
  const HostPolicy policy = *HostPolicy::make({"localhost", "vm.test:8000", "[::1]"});
  EXPECT_TRUE(policy.allows("localhost"));
  EXPECT_TRUE(policy.allows("LocalHost:8123"));
  EXPECT_TRUE(policy.allows("vm.test:8000"));
  EXPECT_TRUE(policy.allows("[::1]:8000"));
  for (const char* host : {"vm.test", "vm.test:8001", "evil.example", "localhost.evil.example",
                           "localhost:", "localhost:0", "localhost:99999", "", "127.0.0.1",
                           "localhost:80:80", "localhost@evil", "[::2]", "[::1", "localhost "}) {
    EXPECT_FALSE(policy.allows(host)) << host;
  }
}

TEST(Bearer, MatchesOnlyTheWholeToken) {
  EXPECT_TRUE(bearer_matches("Bearer secret", "secret"));
  EXPECT_TRUE(bearer_matches("bearer secret", "secret"));
  for (const char* value : {"", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "secret",
                            "Basic secret", "Bearer Secret"}) {
    EXPECT_FALSE(bearer_matches(value, "secret")) << value;
  }
  // An empty token would open the door to everyone.
  EXPECT_FALSE(bearer_matches("Bearer ", ""));
}

TEST(Accept, ListsWildcardsAndQualities) {
  EXPECT_TRUE(accepts("application/json, text/event-stream", "text/event-stream"));
  EXPECT_TRUE(accepts("*/*", "text/event-stream"));
  EXPECT_TRUE(accepts("text/*;q=0.5", "text/event-stream"));
  EXPECT_FALSE(accepts("application/json", "text/event-stream"));
  EXPECT_FALSE(accepts("text/event-stream;q=0", "text/event-stream"));
  EXPECT_FALSE(accepts("", "application/json"));
}

TEST(MediaType, IgnoresParametersAndCase) {
  EXPECT_TRUE(media_type_is("Application/JSON; charset=utf-8", "application/json"));
  EXPECT_FALSE(media_type_is("application/jsonp", "application/json"));
}

TEST(Route, Targets) {
  EXPECT_EQ(parse_target("/health").kind, RouteKind::kHealth);
  EXPECT_EQ(parse_target("/mcp").kind, RouteKind::kMcp);
  EXPECT_EQ(parse_target("/mcp/").kind, RouteKind::kMcp);
  EXPECT_EQ(parse_target("/servers/files/mcp").server, "files");
  EXPECT_EQ(parse_target("/servers/files/sse").kind, RouteKind::kLegacySse);
  EXPECT_EQ(query_value(parse_target("/messages?a=b&sessionId=xyz").query, "sessionId"), "xyz");
  for (const char* target : {"", "/", "*", "/servers//mcp", "/servers/a/b/mcp", "/servers/a",
                             "/mcp/x", "http://evil/mcp", "/health/x"}) {
    EXPECT_EQ(parse_target(target).kind, RouteKind::kUnknown) << target;
  }
}

}  // namespace
}  // namespace agent_vm::http

#include "launch/start_profile.h"

#include <gmock/gmock.h>

namespace agent_vm {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// A start of one second: 100 ms on the host, 500 ms of identity, then the login.
StartProfile one_second() {
  StartProfile profile;
  const auto at = [&](int ms) {
    return (profile.begin + std::chrono::milliseconds(ms)).time_since_epoch().count();
  };
  json phases = json::array();
  phases.push_back({{"name", "ports"}, {"end_ns", at(100)}});
  phases.push_back({{"name", "identity"}, {"end_ns", at(600)}});
  json steps = json::array();
  steps.push_back({{"name", "disk"}, {"ms", 300}});
  steps.push_back({{"name", "a<b>&\n"}, {"ms", 100}});
  profile.take({{"phases", phases}, {"identity", steps}});
  profile.end = profile.begin + std::chrono::seconds(1);
  return profile;
}

TEST(StartProfile, LaysTheGuestsStepsBeforeTheEndOfTheIdentity) {
  const auto spans = one_second().spans;
  ASSERT_EQ(spans.size(), 4U);
  EXPECT_EQ(spans[0].name, "ports");
  EXPECT_EQ(spans[1].name, "identity");
  EXPECT_NEAR(spans[1].begin_ms, 100, 0.01);
  EXPECT_EQ(spans[2].where, "guest");
  EXPECT_NEAR(spans[2].begin_ms, 200, 0.01);
  EXPECT_NEAR(spans[3].end_ms, 600, 0.01);
}

TEST(StartProfile, ShowsEachSpanAsTextAndAsPicture) {
  const auto lines = to_lines(one_second());
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_THAT(lines[0], HasSubstr("1000 ms"));
  EXPECT_THAT(lines[2], HasSubstr("|    ####################"));
  EXPECT_THAT(lines[4], HasSubstr("a<b>&\\x0a"));
  const std::string svg = to_svg(one_second());
  EXPECT_THAT(svg, HasSubstr("a&lt;b>&amp;\\x0a"));
  EXPECT_THAT(svg, HasSubstr("500 ms"));
}

TEST(StartProfile, TakesNoNonsenseFromTheGuest) {
  StartProfile profile = one_second();
  profile.spans.push_back({"host", "guest agent", 10, 90});
  profile.take_boot({{"kernel_ms", "x"}, {"userspace_ms", -4}, {"units", {1, {{"ms", 1e300}}}}});
  EXPECT_NO_THROW(to_svg(profile));
  for (const auto& span : profile.spans) EXPECT_LE(span.end_ms, 4e6);
}

}  // namespace
}  // namespace agent_vm

#include "plan/id_map.h"

#include <gmock/gmock.h>

namespace agent_vm {
namespace {

IdMapInputs inputs(uid_t uid, std::string_view sub) {
  return {.uid = uid,
          .gid = uid,
          .user_name = uid == 0 ? "root" : "ann",
          .subuids = parse_subordinate_ranges(sub),
          .subgids = parse_subordinate_ranges(sub)};
}

TEST(IdMap, M16_AnOrdinaryUserIsDevAndGuestRootIsSubordinate) {
  const auto map = plan_id_map(inputs(1234, "bob:1:65536\nann:100000:65536\n"));
  ASSERT_TRUE(map);
  EXPECT_EQ(map->outside_uid(kGuestDev), 1234U);
  EXPECT_EQ(map->outside_uid(kGuestRoot), 100000U);
  EXPECT_EQ(map->outside_uid(999), 100999U);
  EXPECT_EQ(map->outside_uid(1001), 101000U);
  EXPECT_EQ(map->outside_uid(65535), 165534U);
  EXPECT_FALSE(map->written_directly);
}

TEST(IdMap, M16_RootMapsToTwoUnprivilegedIdsOfAFreeRange) {
  const auto map = plan_id_map(inputs(0, "ann:100000:65536\n"));
  ASSERT_TRUE(map);
  EXPECT_EQ(map->outside_uid(kGuestRoot), kRootRangeStart);
  EXPECT_EQ(map->outside_uid(kGuestDev), kRootRangeStart + 1000);
  EXPECT_TRUE(map->written_directly);

  const auto moved = plan_id_map(inputs(0, "ann:1879048190:65536\nroot:1879113726:10\n"));
  ASSERT_TRUE(moved);
  EXPECT_EQ(moved->outside_uid(kGuestRoot), kRootRangeStart + 2 * kMappedIds);
}

TEST(IdMap, WithoutARangeItSaysWhatToRun) {
  for (const auto* sub : {"", "bob:100000:65536", "ann:100000:1000", "garbage", "ann:x:y"}) {
    const auto map = plan_id_map(inputs(1234, sub));
    ASSERT_FALSE(map) << sub;
    EXPECT_EQ(map.error().kind(), ErrorKind::kMissing);
    EXPECT_THAT(map.error().hint(), testing::HasSubstr("usermod --add-subuids"));
  }
  EXPECT_TRUE(plan_id_map(inputs(1234, "1234:100000:65536")));
}

}  // namespace
}  // namespace agent_vm

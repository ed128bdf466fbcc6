#include "image/initramfs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace agent_vm {
namespace {

using ::testing::ElementsAre;

constexpr const char* kDep =
    "kernel/drivers/virtio/virtio.ko:\n"
    "kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n"
    "kernel/drivers/char/virtio-rng.ko: kernel/drivers/virtio/virtio.ko "
    "kernel/drivers/virtio/virtio_ring.ko\n"
    "kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko\n";

TEST(ModulesInOrder, DependenciesComeFirstAndOnce) {
  const auto order =
      modules_in_order({"virtio_blk", "ext4", "virtio_rng"}, kDep, "kernel/fs/ext4/ext4.ko\n");
  ASSERT_TRUE(order) << order.error().message();
  EXPECT_THAT(
      *order,
      ElementsAre("kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_ring.ko",
                  "kernel/drivers/block/virtio_blk.ko", "kernel/drivers/char/virtio-rng.ko"));
}

TEST(ModulesInOrder, AMissingModuleIsAnError) {
  EXPECT_FALSE(modules_in_order({"virtiofs"}, kDep, ""));
  EXPECT_FALSE(modules_in_order({"a"}, "kernel/a.ko: kernel/b.ko\n", ""));
}

TEST(ModulesInOrder, ACycleEnds) {
  EXPECT_TRUE(modules_in_order({"a"}, "k/a.ko: k/b.ko\nk/b.ko: k/a.ko\n", ""));
}

TEST(Initramfs, IsANewcArchive) {
  const std::string archive = make_initramfs("INIT", {{"virtio.ko", "MODULE"}});
  EXPECT_TRUE(archive.starts_with("070701"));
  EXPECT_EQ(archive.size() % 4, 0U);
  // The field before the name of a file: mode, links, size. init is 0755, and 4 bytes long.
  const auto init = archive.find(std::string("init\0", 5));
  ASSERT_NE(init, std::string::npos);
  EXPECT_EQ(archive.substr(init - 110, 6), "070701");
  EXPECT_EQ(archive.substr(init - 110 + 14, 8), "000081ED");
  EXPECT_EQ(archive.substr(init - 110 + 54, 8), "00000004");
  EXPECT_NE(archive.find("/virtio.ko\n"), std::string::npos);
  EXPECT_NE(archive.find("TRAILER!!!"), std::string::npos);
  EXPECT_EQ(archive, make_initramfs("INIT", {{"virtio.ko", "MODULE"}}));
}

}  // namespace
}  // namespace agent_vm

#include "image/store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "image/scratch.h"
#include "os/files.h"
#include "os/sha256.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kKey = "0123456789abcdef0123";
constexpr const char* kOtherKey = "fedcba98765432100123";

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/store_test_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
    store_.emplace(folder_ + "/agent-vm");
    ASSERT_TRUE(store_->make_folders());
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string image_folder(const std::string& key) const {
    return store_->images_folder() + "/" + key;
  }
  void make_image(const std::string& key, const std::string& created_at = "2026-01-01T00:00:00Z") {
    const std::string dir = image_folder(key);
    fs::create_directory(dir);
    Manifest manifest{.key = key,
                      .recipe_hash = "recipe",
                      .lock_hash = "lock",
                      .created_at = created_at,
                      .release = "bookworm",
                      .kernel_release = "6.1.0",
                      .packages = {{"git", "1:2.39"}}};
    for (const char* name : {"initrd.img", "root.img", "vmlinuz"}) {
      const std::string content = std::string("content of ") + name;
      std::ofstream(dir + "/" + name) << content;
      manifest.files[name] = {content.size(), sha256_hex(content)};
    }
    std::ofstream(dir + "/manifest.json") << to_json_text(manifest);
  }
  // Changes one byte in place, and optionally puts the time of change back.
  void flip(const std::string& key, const std::string& name, bool hide = false) {
    const std::string path = image_folder(key) + "/" + name;
    struct stat before {};
    ASSERT_EQ(::stat(path.c_str(), &before), 0);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(3);
    const int byte = file.get();
    file.seekp(3);
    file.put(static_cast<char>(byte ^ 1));
    file.close();
    if (!hide) return;
    const timespec times[2] = {before.st_atim, before.st_mtim};
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }

  std::string folder_;
  std::optional<ImageStore> store_;
};

TEST_F(StoreTest, OpensAWholeImage) {
  make_image(kKey);
  for (int i = 0; i < 2; ++i) {  // the second time by the remembered hash
    const auto image = store_->open_image(kKey);
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ(image->directory, image_folder(kKey));
    EXPECT_EQ(image->root_bytes, std::string("content of root.img").size());
    EXPECT_EQ(image->manifest.packages.at("git"), "1:2.39");
  }
}

TEST_F(StoreTest, S27RefusesAFlippedByte) {
  for (const char* name : {"initrd.img", "root.img", "vmlinuz"}) {
    for (const bool opened_before : {false, true}) {
      for (const bool hide : {false, true}) {
        fs::remove_all(image_folder(kKey));
        make_image(kKey);
        if (opened_before) {
          ASSERT_TRUE(store_->open_image(kKey));
        }
        flip(kKey, name, hide);
        const auto image = store_->open_image(kKey);
        ASSERT_FALSE(image) << name << opened_before << hide;
        EXPECT_THAT(image.error().message(), HasSubstr(name));
        EXPECT_THAT(image.error().hint(), HasSubstr("agent-vm image build"));
        // Control: with the byte put back it is whole again.
        flip(kKey, name);
        EXPECT_TRUE(store_->open_image(kKey)) << name;
      }
    }
  }
}

TEST_F(StoreTest, S27RefusesMissingAndForeignParts) {
  make_image(kKey);
  const std::string dir = image_folder(kKey);
  fs::rename(dir + "/vmlinuz", dir + "/elsewhere");
  EXPECT_FALSE(store_->open_image(kKey));
  // A link to a file with the right content is not the image's own file.
  fs::create_symlink(dir + "/elsewhere", dir + "/vmlinuz");
  EXPECT_FALSE(store_->open_image(kKey));
  fs::remove(dir + "/vmlinuz");
  fs::rename(dir + "/elsewhere", dir + "/vmlinuz");
  ASSERT_TRUE(store_->open_image(kKey));

  fs::rename(dir, image_folder(kOtherKey));
  const auto moved = store_->open_image(kOtherKey);
  ASSERT_FALSE(moved);
  EXPECT_THAT(moved.error().message(), HasSubstr(kKey));
}

TEST_F(StoreTest, RefusesAnotherSchemaAndTornManifests) {
  make_image(kKey);
  const std::string path = image_folder(kKey) + "/manifest.json";
  const std::string good = read_file(path, 1U << 20U).value();
  std::string other = good;
  other.replace(other.find("\"schema\": 1"), 11, "\"schema\": 7");
  std::ofstream(path) << other;
  auto image = store_->open_image(kKey);
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message(), HasSubstr("schema 7"));
  for (const std::size_t size : {std::size_t{0}, std::size_t{10}, good.size() / 2}) {
    std::ofstream(path) << good.substr(0, size);
    EXPECT_FALSE(store_->open_image(kKey)) << size;
  }
  std::ofstream(path) << good;
  EXPECT_TRUE(store_->open_image(kKey));
}

TEST_F(StoreTest, KeysCannotLeaveTheFolder) {
  for (const char* key : {"", "..", "../images", "0123", "0123456789ABCDEF", "a/b", "proto"}) {
    const auto image = store_->open_image(key);
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().kind(), ErrorKind::kInvalidInput) << key;
  }
  EXPECT_EQ(store_->open_image(kKey).error().kind(), ErrorKind::kNotFound);
}

TEST_F(StoreTest, FindsTheNewestWholeImageOfARecipe) {
  make_image(kKey, "2026-01-01T00:00:00Z");
  make_image(kOtherKey, "2026-02-01T00:00:00Z");
  EXPECT_EQ(store_->find_image("recipe").value()->key, kOtherKey);
  EXPECT_FALSE(store_->find_image("another").value());
  flip(kOtherKey, "root.img");
  EXPECT_EQ(store_->find_image("recipe").value()->key, kKey);
  flip(kKey, "vmlinuz");
  const auto damaged = store_->find_image("recipe");
  ASSERT_FALSE(damaged);
  EXPECT_THAT(damaged.error().message(), HasSubstr("root.img"));
}

TEST_F(StoreTest, PruneKeepsWhatIsInUse) {
  make_image(kKey);
  make_image(kOtherKey);
  std::ofstream(store_->packages_folder() + "/x.deb") << "x";
  const auto never = Deadline::never();
  const auto dry = store_->prune({kKey}, true, never);
  ASSERT_TRUE(dry) << dry.error().message();
  EXPECT_THAT(dry->keys, ElementsAre(kOtherKey));
  EXPECT_TRUE(store_->open_image(kOtherKey));
  const auto pruned = store_->prune({kKey}, false, never);
  ASSERT_TRUE(pruned);
  EXPECT_THAT(pruned->keys, ElementsAre(kOtherKey));
  EXPECT_GT(pruned->freed_bytes, 0U);
  EXPECT_TRUE(store_->open_image(kKey));
  EXPECT_FALSE(fs::exists(image_folder(kOtherKey)));
  EXPECT_TRUE(fs::is_empty(store_->packages_folder()));
}

TEST_F(StoreTest, PruneKeepsTheImagesOfVmsElsewhere) {
  make_image(kKey);
  const std::string vm = folder_ + "/other-state/vm";
  fs::create_directories(vm);
  std::ofstream(vm + "/disk.json") << "{\"image_key\": \"" << kKey << "\"}";
  ASSERT_TRUE(store_->add_user(kKey, vm));
  ASSERT_TRUE(store_->add_user(kKey, vm));
  EXPECT_THAT(store_->users(kKey).value(), ElementsAre(vm));
  ASSERT_TRUE(store_->prune({}, false, Deadline::never()));
  EXPECT_TRUE(store_->open_image(kKey));
  // Control: once the VM has another disk, nothing keeps the image.
  std::ofstream(vm + "/disk.json") << "{\"image_key\": \"" << kOtherKey << "\"}";
  ASSERT_TRUE(store_->prune({}, false, Deadline::never()));
  EXPECT_EQ(store_->open_image(kKey).error().kind(), ErrorKind::kNotFound);
}

TEST_F(StoreTest, ListShowsDamagedImagesToo) {
  make_image(kKey);
  fs::create_directory(image_folder(kOtherKey));
  const auto entries = store_->list();
  ASSERT_TRUE(entries);
  ASSERT_EQ(entries->size(), 2U);
  EXPECT_EQ(entries->front().key, kKey);
  EXPECT_FALSE(entries->back().manifest);
  EXPECT_THAT(entries->back().problem, HasSubstr("manifest.json"));
}

TEST_F(StoreTest, ScratchIsRemovedAndSoIsWhatAKilledBuildLeft) {
  ASSERT_EQ(::setenv("TMPDIR", folder_.c_str(), 1), 0);
  const std::string leftover = folder_ + "/agent-vm-image-leftover";
  fs::create_directories(leftover + "/tmp/mmdebstrap.x/etc");
  std::string path;
  {
    const auto scratch = Scratch::make();
    ASSERT_TRUE(scratch) << scratch.error().message();
    path = scratch->path();
    EXPECT_TRUE(fs::exists(path));
    EXPECT_FALSE(fs::exists(leftover));
    // One that is in use stays.
    const auto second = Scratch::make();
    ASSERT_TRUE(second);
    EXPECT_TRUE(fs::exists(path));
  }
  EXPECT_FALSE(fs::exists(path));
  ::unsetenv("TMPDIR");
}

}  // namespace
}  // namespace agent_vm

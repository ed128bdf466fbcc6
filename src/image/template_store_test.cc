#include "image/template_store.h"

#include <fcntl.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "os/files.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class TemplateStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "templates-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  TemplateStore store() const { return TemplateStore(folder_); }

  static void fill(const TemplateDraft& draft) {
    for (const auto* name : {template_files::kPages, template_files::kMap, template_files::kDevices,
                             template_files::kRoot}) {
      const auto file = draft.create(name);
      ASSERT_TRUE(file);
      ASSERT_TRUE(write_all(file->get(), std::string("content of ") + name));
    }
  }
  void make(const std::string& key) const {
    auto draft = store().begin(key);
    ASSERT_TRUE(draft && *draft);
    fill(**draft);
    ASSERT_TRUE((*draft)->commit());
  }
  std::string file(const std::string& key, const char* name) const {
    return folder_ + "/templates/" + key + "/" + name;
  }

  std::string folder_;
};

TEST_F(TemplateStoreTest, WhatWasMadeIsOpened) {
  const auto none = store().open("abc");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().kind(), ErrorKind::kNotFound);
  make("abc");
  const auto found = store().open("abc");
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(read_all(found->devices.get(), 100).value_or(""), "content of devices");
  EXPECT_FALSE(store().open("abd"));
}

TEST_F(TemplateStoreTest, OneMakerAtATime) {
  auto first = store().begin("abc");
  ASSERT_TRUE(first && *first);
  const auto second = store().begin("abc");
  ASSERT_TRUE(second);
  EXPECT_FALSE(*second);
  const auto other = store().begin("abd");
  EXPECT_TRUE(other && *other);
}

TEST_F(TemplateStoreTest, F14_AnUnfinishedOneIsNoTemplateAndIsInNobodysWay) {
  {
    auto draft = store().begin("abc");
    ASSERT_TRUE(draft && *draft);
    fill(**draft);
  }
  EXPECT_FALSE(store().open("abc"));
  make("abc");
  EXPECT_TRUE(store().open("abc"));
}

TEST_F(TemplateStoreTest, S27_AChangedByteIsNoticedAndMendedByANewOne) {
  make("abc");
  for (const auto* name : {template_files::kPages, template_files::kMap, template_files::kDevices,
                           template_files::kRoot}) {
    std::fstream(file("abc", name), std::ios::in | std::ios::out) << "C";
    const auto damaged = store().open("abc");
    ASSERT_FALSE(damaged) << name;
    EXPECT_THAT(damaged.error().message(), HasSubstr(name));
    EXPECT_NE(damaged.error().kind(), ErrorKind::kNotFound);
    make("abc");
    EXPECT_TRUE(store().open("abc"));
  }
}

TEST_F(TemplateStoreTest, S27_AShorterFileIsNoticed) {
  make("abc");
  fs::resize_file(file("abc", template_files::kPages), 5);
  EXPECT_THAT(store().open("abc").error().message(), HasSubstr("5 bytes"));
}

TEST_F(TemplateStoreTest, S28_LinksAreNotFollowed) {
  make("abc");
  const auto pages = file("abc", template_files::kPages);
  fs::rename(pages, folder_ + "/elsewhere");
  fs::create_symlink(folder_ + "/elsewhere", pages);
  EXPECT_FALSE(store().open("abc"));
}

}  // namespace
}  // namespace agent_vm

#include "image/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "image/compose.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;

class RecipeTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/recipe_test_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
    source_ = {.image_folder = folder_ + "/image", .guest_programs_folder = folder_ + "/guest"};
    write("image/packages/base.list", "git   # the reason\n\nbash\n");
    write("image/packages/build-tools.list", "gcc\n");
    write("image/tree.conf", "R /tmp/*\n");
    write("image/files/etc/hosts", "127.0.0.1 localhost\n");
    write("image/files/home/dev/.profile", "");
    for (const char* name :
         {"agent-lsp", "agent-mcp", "agent-vm-git-ssh", "agent-vm-identity", "agent-vm-init"}) {
      write(std::string("guest/") + name, name);
    }
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories(fs::path(folder_ + "/" + path).parent_path());
    std::ofstream(folder_ + "/" + path) << text;
  }
  Recipe load(const ImageChoice& choice = {}) const {
    auto recipe = load_recipe(source_, choice);
    EXPECT_TRUE(recipe) << recipe.error().message();
    return recipe ? std::move(*recipe) : Recipe{};
  }

  std::string folder_;
  RecipeSource source_;
};

TEST_F(RecipeTest, HashDependsOnEverythingThatGoesIn) {
  const std::string hash = load().hash;
  EXPECT_EQ(load().hash, hash);
  // Neither order nor repetition of what is asked for matters.
  EXPECT_EQ(load({.packages = {"jq", "sl", "jq"}}).hash, load({.packages = {"sl", "jq"}}).hash);
  std::set<std::string> hashes{hash};
  const auto expect_new = [&](const Recipe& recipe, const char* what) {
    EXPECT_TRUE(hashes.insert(recipe.hash).second) << what;
  };
  expect_new(load({.variant = "build-tools"}), "variant");
  expect_new(load({.packages = {"jq"}}), "package");
  expect_new(load({.npm = {"jq"}}), "npm package of the same name");
  write("image/files/etc/hosts", "127.0.0.1 other\n");
  expect_new(load(), "content of a file");
  fs::permissions(folder_ + "/image/files/etc/hosts", fs::perms::owner_exec, fs::perm_options::add);
  expect_new(load(), "mode of a file");
  write("image/files/etc/more", "");
  expect_new(load(), "a file");
  write("image/tree.conf", "R /var/*\n");
  expect_new(load(), "a rule");
  write("guest/agent-mcp", "another program");
  expect_new(load(), "a guest program");
  write("guest/agent-vm-init", "another init");
  expect_new(load(), "init");
  write("image/packages/base.list", "git\n");
  expect_new(load(), "the package list");
}

TEST_F(RecipeTest, HashDoesNotDependOnTheCheckout) {
  const std::string hash = load().hash;
  // As under another umask, and at another time.
  fs::permissions(folder_ + "/image/files/etc/hosts", fs::perms(0600));
  fs::permissions(folder_ + "/image/files/etc", fs::perms(0700));
  fs::last_write_time(folder_ + "/image/files/etc/hosts", fs::file_time_type::clock::now());
  write("image/tree.conf", "# a comment\nR   /tmp/*\n");
  EXPECT_EQ(load().hash, hash);
  fs::rename(folder_ + "/image", folder_ + "/moved");
  source_.image_folder = folder_ + "/moved";
  EXPECT_EQ(load().hash, hash);
}

TEST_F(RecipeTest, FilesBelongToWhomTheyShould) {
  const Recipe recipe = load();
  EXPECT_THAT(recipe.packages, testing::ElementsAre("bash", "git"));
  EXPECT_EQ(recipe.files.find("/etc/hosts")->uid, 0U);
  EXPECT_EQ(recipe.files.find("/home/dev/.profile")->uid, 1000U);
  EXPECT_EQ(recipe.files.find("/usr/lib/agent-vm/agent-mcp")->mode, 0755U);
}

TEST_F(RecipeTest, AVariantMayNamePackagesOfNpms) {
  write("image/packages/web.list", "nginx\nnpm @scope/tool@2  # the reason\nnpm other\n");
  const Recipe recipe = load({.variant = "web"});
  EXPECT_THAT(recipe.packages, testing::ElementsAre("bash", "git", "nginx"));
  EXPECT_THAT(recipe.npm, testing::ElementsAre("@scope/tool@2", "other"));
  EXPECT_THAT(recipe.choice.npm, testing::IsEmpty());
  // Who names it decides.
  EXPECT_THAT(load({.variant = "web", .npm = {"@scope/tool@3"}}).npm,
              testing::ElementsAre("@scope/tool@3", "other"));
  write("image/packages/web.list", "npm file:../x\n");
  const auto refused = load_recipe(source_, {.variant = "web"});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("web.list"));
}

TEST_F(RecipeTest, VariantsAreJoined) {
  write("image/packages/web.list", "nginx\n");
  const Recipe both = load({.variant = "web+build-tools"});
  EXPECT_THAT(both.packages, testing::ElementsAre("bash", "gcc", "git", "nginx"));
  EXPECT_EQ(both.choice.variant, "build-tools+web");
  EXPECT_EQ(load({.variant = "build-tools+web+default+web"}).hash, both.hash);
  EXPECT_EQ(load({.variant = "default+default"}).hash, load().hash);
  const auto refused = load_recipe(source_, {.variant = "web+huge"});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("'huge'"));
}

TEST_F(RecipeTest, ErrorsSayWhatIsWrong) {
  auto recipe = load_recipe(source_, {.variant = "huge"});
  ASSERT_FALSE(recipe);
  EXPECT_EQ(recipe.error().kind(), ErrorKind::kInvalidInput);
  EXPECT_THAT(recipe.error().hint(), HasSubstr("build-tools"));

  EXPECT_FALSE(load_recipe(source_, {.variant = "../packages/base"}));
  EXPECT_FALSE(load_recipe(source_, {.packages = {"-o"}}));
  EXPECT_FALSE(load_recipe(source_, {.npm = {"file:../x"}}));

  fs::remove(folder_ + "/guest/agent-mcp");
  recipe = load_recipe(source_, {});
  ASSERT_FALSE(recipe);
  EXPECT_EQ(recipe.error().kind(), ErrorKind::kMissing);
  EXPECT_THAT(recipe.error().message(), HasSubstr("agent-mcp"));
}

TEST(Shadow, DoesNotTellTheDayOfTheBuild) {
  EXPECT_EQ(
      with_change_day("root:*:20000:0:99999:7:::\nsshd:!:20001::::::\ndev:*::0:99999:7:::\n", 19),
      "root:*:19:0:99999:7:::\nsshd:!:19::::::\ndev:*::0:99999:7:::\n");
}

TEST(DpkgStatus, ListsInstalledPackages) {
  const auto versions = parse_dpkg_status(
      "Package: git\nStatus: install ok installed\nVersion: 1:2.39\n\n"
      "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
      "Package: jq\nVersion: 1.6\nStatus: install ok installed\n");
  EXPECT_EQ(versions, (std::map<std::string, std::string>{{"git", "1:2.39"}, {"jq", "1.6"}}));
}

}  // namespace
}  // namespace agent_vm

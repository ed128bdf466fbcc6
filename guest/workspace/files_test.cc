#include "workspace/files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "workspace/test_folder.h"

namespace agent_vm::workspace {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(Root, S9_NothingLeadsOut) {
  const TestFolder folder;
  const Root root = folder.root();
  std::ofstream(folder.outside() / "secret") << "canary";
  folder.put("inside", "ok");
  folder.put("sub/x", "");
  fs::create_symlink("../secret", folder.path() / "up");
  fs::create_symlink(folder.outside() / "secret", folder.path() / "absolute");
  fs::create_directory_symlink("..", folder.path() / "parent");
  fs::create_symlink("inside", folder.path() / "good");

  for (const std::string& name : std::vector<std::string>{
           "../secret", "up", "absolute", "parent/secret", "/etc/passwd", "a/../../secret",
           "/proc/self/root/etc/passwd", std::string("in\0side", 7)}) {
    EXPECT_FALSE(load(root, name)) << name;
    EXPECT_FALSE(store(root, name, "overwritten", {})) << name;
  }
  std::ostringstream secret;
  secret << std::ifstream(folder.outside() / "secret").rdbuf();
  EXPECT_EQ(secret.str(), "canary");

  // The same calls succeed for what stays inside, so the refusals above mean something.
  EXPECT_EQ(*load(root, "inside"), "ok");
  EXPECT_EQ(*load(root, "good"), "ok");
  EXPECT_EQ(*load(root, (folder.path() / "inside").string()), "ok");
  EXPECT_EQ(*load(root, "./sub/../inside"), "ok");
}

TEST(Root, S9_AFolderThatTurnsIntoALinkIsNeverFollowedOut) {
  const TestFolder folder;
  const Root root = folder.root();
  fs::create_directory(folder.outside() / "out");
  std::ofstream(folder.outside() / "out" / "file") << "canary";
  folder.put("real/file", "inside");
  std::atomic<bool> stop{false};
  std::thread flipper([&] {
    fs::create_directory_symlink(folder.outside() / "out", folder.path() / "link");
    while (!stop) {
      ::renameat2(AT_FDCWD, (folder.path() / "real").c_str(), AT_FDCWD,
                  (folder.path() / "link").c_str(), RENAME_EXCHANGE);
    }
  });
  // Until both states were met often: with neither missing, the check below cannot be vacuous.
  int inside = 0;
  int refused = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while ((inside < 1000 || refused < 1000) && std::chrono::steady_clock::now() < deadline) {
    const auto content = load(root, "real/file");
    if (content) {
      EXPECT_EQ(*content, "inside");
    }
    ++(content ? inside : refused);
  }
  stop = true;
  flipper.join();
  EXPECT_GE(inside, 1000);
  EXPECT_GE(refused, 1000);
}

TEST(Store, KeepsTheModeAndLeavesNoTemporaryFile) {
  const TestFolder folder;
  const Root root = folder.root();
  folder.put("script", "old");
  fs::permissions(folder.path() / "script", fs::perms(0755));
  ASSERT_TRUE(store(root, "script", "new", {}));
  EXPECT_EQ(folder.get("script"), "new");
  EXPECT_EQ(fs::status(folder.path() / "script").permissions(), fs::perms(0755));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

TEST(Store, WritesThroughALinkAndKeepsTheLink) {
  const TestFolder folder;
  const Root root = folder.root();
  folder.put("docs/real", "old");
  fs::create_symlink("docs/real", folder.path() / "link");
  ASSERT_TRUE(store(root, "link", "new", {}));
  EXPECT_EQ(folder.get("docs/real"), "new");
  EXPECT_TRUE(fs::is_symlink(folder.path() / "link"));
}

TEST(Store, DoesNotLoseAChangeMadeInBetween) {
  const TestFolder folder;
  const Root root = folder.root();
  folder.put("file", "theirs");
  const auto stale = store(root, "file", "mine", {Expected::State::kContent, "what I read"});
  ASSERT_FALSE(stale);
  EXPECT_THAT(stale.error().message(), HasSubstr("read it again"));
  EXPECT_EQ(folder.get("file"), "theirs");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
  EXPECT_TRUE(store(root, "file", "mine", {Expected::State::kContent, "theirs"}));
  EXPECT_FALSE(store(root, "file", "x", {Expected::State::kAbsent, ""}));
}

TEST(Store, MakesDirectoriesAndRefusesWhatIsNoFile) {
  const TestFolder folder;
  const Root root = folder.root();
  EXPECT_TRUE(store(root, "a/b/c", "x", {}));
  EXPECT_EQ(folder.get("a/b/c"), "x");
  EXPECT_FALSE(store(root, "a/b", "x", {}));
  EXPECT_FALSE(store(root, ".", "x", {}));
  ::mkfifo((folder.path() / "pipe").c_str(), 0600);
  EXPECT_FALSE(store(root, "pipe", "x", {}));
  EXPECT_FALSE(load(root, "pipe"));  // and does not wait for a writer
}

TEST(Read, NumbersLinesAndSaysHowToGoOn) {
  const TestFolder folder;
  const Root root = folder.root();
  folder.put("f", "one\ntwo\nthree\n");
  EXPECT_EQ(read_tool(root, "f", 1, 2)->text,
            "     1\tone\n     2\ttwo\n[lines 1 to 2 of 3; read on with offset 3]\n");
  EXPECT_EQ(read_tool(root, "f", 3, 10)->text, "     3\tthree\n");
  EXPECT_FALSE(read_tool(root, "f", 4, 10));
  EXPECT_EQ(read_tool(root, ".", 1, 10)->text, "f");
  folder.put("big", std::string(10 << 20, 'x') + "\n" + std::string(1 << 20, 'y'));
  EXPECT_LE(read_tool(root, "big", 1, 100000)->text.size(), kMaxOutputBytes);
  folder.put("binary", std::string("\0\1\2", 3));
  EXPECT_THAT(read_tool(root, "binary", 1, 10)->text, HasSubstr("binary file of 3 bytes"));
}

TEST(Edit, NeedsExactlyOneMatch) {
  const TestFolder folder;
  const Root root = folder.root();
  folder.put("f", "a b a\n");
  EXPECT_THAT(edit_tool(root, "f", "a", "c", false).error().message(), HasSubstr("2 times"));
  EXPECT_THAT(edit_tool(root, "f", "z", "c", false).error().message(), HasSubstr("does not occur"));
  EXPECT_FALSE(edit_tool(root, "f", "", "c", false));
  EXPECT_FALSE(edit_tool(root, "f", "b", "b", false));
  EXPECT_EQ(folder.get("f"), "a b a\n");
  ASSERT_TRUE(edit_tool(root, "f", "b", "$1", false));
  EXPECT_EQ(folder.get("f"), "a $1 a\n");
  ASSERT_TRUE(edit_tool(root, "f", "a", "aa", true));
  EXPECT_EQ(folder.get("f"), "aa $1 aa\n");
}

TEST(OutputBuffer, KeepsBothEndsWithinItsLimit) {
  OutputBuffer buffer(100);
  buffer.append("start ");
  for (int i = 0; i < 10000; ++i) buffer.append("middle ");
  buffer.append("end");
  const std::string text = buffer.take();
  EXPECT_TRUE(text.starts_with("start "));
  EXPECT_TRUE(text.ends_with("end"));
  EXPECT_LE(text.size(), 150U);
  EXPECT_THAT(text, HasSubstr("bytes are left out here"));
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(limit_output("short", 100), "short");
}

}  // namespace
}  // namespace agent_vm::workspace

#include "workspace/patch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "workspace/test_folder.h"

namespace agent_vm::workspace {
namespace {

using testing::HasSubstr;

TEST(Patch, ChangesAddsMovesAndDeletes) {
  const TestFolder folder;
  const Root root = folder.root();
  folder.put("a.txt", "one\ntwo\nthree\nfour\n");
  folder.put("old.txt", "gone\n");
  folder.put("move.txt", "m\n");
  const auto applied = apply_patch_tool(root,
                                        "*** Begin Patch\n"
                                        "*** Update File: a.txt\n"
                                        "@@\n one\n-two\n+2\n three\n"
                                        "*** Add File: dir/new.txt\n+hello\n+world\n"
                                        "*** Delete File: old.txt\n"
                                        "*** Update File: move.txt\n*** Move to: moved.txt\n"
                                        "@@\n-m\n+n\n"
                                        "*** End Patch\n");
  ASSERT_TRUE(applied) << applied.error().message();
  EXPECT_EQ(folder.get("a.txt"), "one\n2\nthree\nfour\n");
  EXPECT_EQ(folder.get("dir/new.txt"), "hello\nworld\n");
  EXPECT_EQ(folder.get("moved.txt"), "n\n");
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "old.txt"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "move.txt"));
}

TEST(Patch, AllOrNothing) {
  const TestFolder folder;
  const Root root = folder.root();
  folder.put("a", "1\n");
  folder.put("b", "2\n");
  const auto applied = apply_patch_tool(root,
                                        "*** Begin Patch\n"
                                        "*** Update File: a\n@@\n-1\n+x\n"
                                        "*** Update File: b\n@@\n-not there\n+x\n"
                                        "*** End Patch");
  ASSERT_FALSE(applied);
  EXPECT_THAT(applied.error().message(), HasSubstr("not there"));
  EXPECT_EQ(folder.get("a"), "1\n");
}

TEST(Patch, AnchorsAndLooseWhiteSpace) {
  FilePatch patch;
  patch.hunks = {{"def g():", {"    return 1"}, {"    return 2"}, false}};
  EXPECT_EQ(*apply_hunks("def f():\n    return 1  \ndef g():\n    return 1  \n", patch),
            "def f():\n    return 1  \ndef g():\n    return 2\n");
  patch.hunks[0].anchor = "def h():";
  EXPECT_FALSE(apply_hunks("def g():\n", patch));
}

TEST(Patch, MessagesNameTheLine) {
  for (const auto& [text, expected] : std::vector<std::pair<const char*, const char*>>{
           {"*** Begin Patch\n*** Update File: a\n@@\n?x\n*** End Patch", "line 4"},
           {"*** Begin Patch\n*** Rename File: a\n*** End Patch", "line 2"},
           {"*** Begin Patch\n*** Delete File: a\n", "End Patch"},
           {"*** Begin Patch\n*** End Patch", "no file"},
           {"*** Begin Patch\n*** Add File: a\nx\n*** End Patch", "begins with +"}}) {
    const auto patches = parse_patch(text);
    ASSERT_FALSE(patches) << text;
    EXPECT_THAT(patches.error().message(), HasSubstr(expected));
  }
}

TEST(Patch, UnifiedDiffs) {
  const TestFolder folder;
  const Root root = folder.root();
  folder.put("a", "1\n2\n3\n");
  const std::string diff = "--- a/a\n+++ b/a\n@@ -1,3 +1,3 @@\n 1\n-2\n+two\n 3\n";
  const auto applied = apply_patch_tool(root, diff);
  ASSERT_TRUE(applied) << applied.error().message();
  EXPECT_EQ(folder.get("a"), "1\ntwo\n3\n");
  EXPECT_FALSE(apply_patch_tool(root, diff));  // it does not apply twice
}

TEST(Patch, S9_NeitherFormatLeavesTheWorkspace) {
  const TestFolder folder;
  const Root root = folder.root();
  std::filesystem::create_directory_symlink(folder.outside(), folder.path() / "link");
  for (const std::string name : {"../x", "link/x", "/tmp/../tmp/agent-vm-x"}) {
    EXPECT_FALSE(
        apply_patch_tool(root, "*** Begin Patch\n*** Add File: " + name + "\n+x\n*** End Patch"))
        << name;
    EXPECT_FALSE(apply_patch_tool(root, "--- /dev/null\n+++ b/" + name + "\n@@ -0,0 +1 @@\n+x\n"))
        << name;
  }
  EXPECT_FALSE(std::filesystem::exists(folder.outside() / "x"));
}

}  // namespace
}  // namespace agent_vm::workspace

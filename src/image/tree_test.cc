#include "image/tree.h"

#include <gtest/gtest.h>

#include "image/tree_rules.h"

namespace agent_vm {
namespace {

Node directory() {
  return Node{.type = NodeType::kDirectory, .mode = 0755};
}
Node file(std::string text) {
  return Node{.size = text.size(), .content = std::move(text)};
}
Node hard_link(std::string target) {
  return Node{.type = NodeType::kHardLink, .target = std::move(target)};
}

Tree sample() {
  Tree tree;
  for (const char* path : {"/etc", "/var", "/var/log", "/var/log/apt"}) {
    EXPECT_TRUE(tree.put(path, directory()));
  }
  EXPECT_TRUE(tree.put("/etc/passwd", file("root:x:0:0:root:/root:/bin/bash\n")));
  EXPECT_TRUE(tree.put("/etc/group", file("root:x:0:\n")));
  EXPECT_TRUE(tree.put("/etc/shadow", file("root:*::::::\n")));
  EXPECT_TRUE(tree.put("/etc/gshadow", file("root:*::\n")));
  EXPECT_TRUE(tree.put("/var/log/dpkg.log", file("x")));
  EXPECT_TRUE(tree.put("/var/log/apt/history.log", file("y")));
  return tree;
}

Status apply(Tree& tree, std::string_view text) {
  auto rules = parse_tree_rules(text, "tree.conf");
  if (!rules) return tl::unexpected(rules.error());
  return apply_tree_rules(*rules, "tree.conf", tree);
}

TEST(Tree, PutNeedsADirectoryAsParent) {
  Tree tree = sample();
  EXPECT_FALSE(tree.put("/missing/file", file("")));
  EXPECT_FALSE(tree.put("/etc/passwd/file", file("")));
  EXPECT_FALSE(tree.put("/etc", file("")));  // would lose what is in it
  EXPECT_TRUE(tree.put("/etc/new", file("")));
}

TEST(Tree, RemoveTakesWhatIsBelow) {
  Tree tree = sample();
  EXPECT_EQ(tree.remove("/var/log/*"), 3U);
  EXPECT_NE(tree.find("/var/log"), nullptr);
  EXPECT_EQ(tree.find("/var/log/apt/history.log"), nullptr);
}

TEST(Tree, RemovingAFileKeepsItsContentForItsLinks) {
  Tree tree = sample();
  ASSERT_TRUE(tree.put("/etc/a", Node{.size = 3, .content = ArchiveMember{"/etc/a"}}));
  ASSERT_TRUE(tree.put("/etc/b", hard_link("/etc/a")));
  ASSERT_TRUE(tree.put("/etc/c", hard_link("/etc/a")));
  tree.remove("/etc/a");
  const Node* heir = tree.find("/etc/b");
  ASSERT_NE(heir, nullptr);
  EXPECT_EQ(heir->type, NodeType::kFile);
  EXPECT_EQ(std::get<ArchiveMember>(heir->content).path, "/etc/a");
  EXPECT_EQ(tree.find("/etc/c")->target, "/etc/b");
}

TEST(Glob, StarStaysInOneComponent) {
  EXPECT_TRUE(glob_match("/var/log/*", "/var/log/dpkg.log"));
  EXPECT_FALSE(glob_match("/var/log/*", "/var/log/apt/history.log"));
  EXPECT_TRUE(glob_match("/root/.*", "/root/.bashrc"));
  EXPECT_TRUE(glob_match("/etc/*-", "/etc/passwd-"));
  EXPECT_FALSE(glob_match("/etc/*-", "/etc/passwd"));
  EXPECT_TRUE(glob_match("/usr/share/doc/*/README*", "/usr/share/doc/git/README.gz"));
  EXPECT_FALSE(glob_match("/usr/share/doc/*/README*", "/usr/share/doc/git/a/README.gz"));
  EXPECT_FALSE(glob_match("/a?b", "/a/b"));
  EXPECT_TRUE(glob_match("/a**b", "/axyb"));
}

TEST(NormalPath, RefusesToLeaveTheRoot) {
  EXPECT_EQ(normal_path("./usr//bin/").value(), "/usr/bin");
  EXPECT_EQ(normal_path("./").value(), "");
  EXPECT_FALSE(normal_path("./../etc/passwd"));
}

TEST(TreeRules, UserHasNoPasswordAndIsNotLocked) {
  Tree tree = sample();
  ASSERT_TRUE(apply(tree, "u dev 1000 /home/dev /bin/bash\nd /home/dev 0750 dev dev\n"));
  const auto text = [&](const char* path) {
    return std::get<std::string>(tree.find(path)->content);
  };
  EXPECT_NE(text("/etc/passwd").find("dev:x:1000:1000:dev:/home/dev:/bin/bash\n"),
            std::string::npos);
  EXPECT_NE(text("/etc/shadow").find("dev:*:"), std::string::npos);
  const Node* home = tree.find("/home/dev");
  ASSERT_NE(home, nullptr);
  EXPECT_EQ(home->uid, 1000U);
  EXPECT_EQ(home->mode, 0750U);
  EXPECT_EQ(tree.find("/home")->uid, 0U);
}

TEST(TreeRules, UserJoinsAGroupThatExists) {
  Tree tree = sample();
  ASSERT_TRUE(apply(tree, "u dev 1000 /home/dev /bin/bash\ng dev root\n"));
  EXPECT_NE(std::get<std::string>(tree.find("/etc/group")->content).find("root:x:0:dev\n"),
            std::string::npos);
  EXPECT_FALSE(apply(tree, "g dev nobodys\n"));
  EXPECT_FALSE(apply(tree, "g ghost root\n"));
}

TEST(TreeRules, AppliesInOrder) {
  Tree tree = sample();
  ASSERT_TRUE(apply(tree,
                    "R /etc/passwd-\n"
                    "L /etc/a/b /dev/null\n"
                    "m /etc/passwd 0600\n"
                    "m /not/there 0600\n"
                    "f /etc/empty 0444 root root\n"));
  EXPECT_EQ(tree.find("/etc/a/b")->target, "/dev/null");
  EXPECT_EQ(tree.find("/etc/passwd")->mode, 0600U);
  EXPECT_EQ(tree.find("/etc/empty")->mode, 0444U);
}

TEST(TreeRules, ErrorsNameTheLine) {
  for (const char* bad :
       {"x /etc", "d /etc 0755 root", "d etc 0755 root root", "R /etc/../var",
        "d /etc 0999 root root", "u dev one /home /bin/sh", "R", "removes /etc"}) {
    const auto rules = parse_tree_rules(std::string("# comment\n") + bad + "\n", "tree.conf");
    ASSERT_FALSE(rules) << bad;
    EXPECT_NE(rules.error().message().find("tree.conf:2"), std::string::npos)
        << rules.error().message();
    EXPECT_EQ(rules.error().kind(), ErrorKind::kInvalidInput);
  }
  Tree tree = sample();
  const auto status = apply(tree, "d /home/dev 0755 nobody root\n");
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message().find("'nobody'"), std::string::npos);
}

}  // namespace
}  // namespace agent_vm

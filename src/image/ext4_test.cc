// The file system is checked with e2fsprogs' own tools, and its bytes are compared.
#include "image/ext4.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "image/archive.h"
#include "os/files.h"
#include "os/run.h"
#include "os/sha256.h"

namespace agent_vm {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kTime = 1'700'000'000;
const std::string kBig(5'000'000, 'x');

// A tar file as mmdebstrap makes them.
void add(archive* a, const char* path, int type, int mode, const std::string& content = {},
         const char* link = nullptr) {
  archive_entry* entry = ::archive_entry_new();
  ::archive_entry_set_pathname(entry, path);
  ::archive_entry_set_mode(entry, static_cast<unsigned short>(type | mode));
  ::archive_entry_set_mtime(entry, 1'600'000'000, 0);
  if (link != nullptr && type == AE_IFLNK) ::archive_entry_set_symlink(entry, link);
  if (link != nullptr && type == AE_IFREG) {
    ::archive_entry_set_hardlink(entry, link);
  } else {
    ::archive_entry_set_size(entry, static_cast<la_int64_t>(content.size()));
  }
  if (std::string_view(path).ends_with("ping")) {
    ::archive_entry_xattr_add_entry(entry, "security.capability", "\1\0\0\2\0\40\0\0", 8);
  }
  ASSERT_EQ(::archive_write_header(a, entry), ARCHIVE_OK) << ::archive_error_string(a);
  if (!content.empty() && link == nullptr) {
    ASSERT_EQ(::archive_write_data(a, content.data(), content.size()),
              static_cast<la_ssize_t>(content.size()));
  }
  ::archive_entry_free(entry);
}

std::string pyc(std::uint32_t time) {
  std::string bytes("\xa7\x0d\x0d\x0a\0\0\0\0", 8);
  for (unsigned i = 0; i < 4; ++i) bytes += static_cast<char>((time >> (8 * i)) & 0xff);
  return bytes + std::string("\5\0\0\0code", 8);
}

void make_tar(const std::string& path, std::uint32_t pyc_time) {
  const locale_t utf8 = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  const locale_t old = ::uselocale(utf8);
  archive* a = ::archive_write_new();
  ::archive_write_set_format_pax(a);
  ASSERT_EQ(::archive_write_open_filename(a, path.c_str()), ARCHIVE_OK);
  add(a, "./", AE_IFDIR, 0755);
  add(a, "./bin/", AE_IFDIR, 0755);
  add(a, "./bin/a", AE_IFREG, 0755, "hello");
  add(a, "./bin/b", AE_IFREG, 0755, {}, "./bin/a");
  add(a, "./bin/big", AE_IFREG, 0644, kBig);
  add(a, "./bin/ping", AE_IFREG, 0755, "ping");
  add(a, "./bin/sparse", AE_IFREG, 0644, std::string(1 << 20, '\0') + "end");
  add(a, "./bin/su", AE_IFREG, 04755, "su");
  add(a, "./bin/x.pyc", AE_IFREG, 0644, pyc(pyc_time));
  add(a, "./bin/\xc3\xa4", AE_IFREG, 0644, "not ASCII");
  add(a, "./dev/", AE_IFDIR, 0755);
  add(a, "./dev/null", AE_IFCHR, 0666);
  add(a, "./lib", AE_IFLNK, 0777, {}, "usr/lib");
  add(a, "./long", AE_IFLNK, 0777, {}, ("/" + std::string(200, 'l')).c_str());
  ASSERT_EQ(::archive_write_close(a), ARCHIVE_OK);
  ::archive_write_free(a);
  ::uselocale(old);
  ::freelocale(utf8);
}

class Ext4Test : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/ext4_test_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    folder_ = path;
    tar_ = folder_ + "/packages.tar";
    make_tar(tar_, 1'600'000'000);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Tree read_tree() const {
    auto tree = read_tar_tree(tar_);
    EXPECT_TRUE(tree) << tree.error().message();
    tree->remove("/dev/*");
    // Many entries: the directory grows beyond its first block.
    EXPECT_TRUE(tree->put("/many", Node{.type = NodeType::kDirectory, .mode = 01777}));
    for (int i = 0; i < 500; ++i) {
      EXPECT_TRUE(tree->put(fmt::format("/many/a-rather-long-file-name-{}", i), Node{}));
    }
    EXPECT_TRUE(tree->put(
        "/home", Node{.type = NodeType::kDirectory, .mode = 0700, .uid = 100'000, .gid = 70'000}));
    return std::move(*tree);
  }
  std::string write(const Tree& tree, const std::string& name) {
    const std::string image = folder_ + "/" + name;
    const auto status = write_ext4(tree, tar_, image, {.time = kTime, .identity = "test"});
    EXPECT_TRUE(status) << status.error().message();
    return image;
  }
  std::string hash(const std::string& path) const {
    const Fd fd(::open(path.c_str(), O_RDONLY));
    return sha256_hex_of_file(fd.get()).value();
  }
  std::string debugfs(const std::string& image, const std::string& request) const {
    const auto output = run({.argv = {"debugfs", "-R", request, image},
                             .extra_environment = {"PATH=/usr/sbin:/sbin:/usr/bin:/bin"}});
    return output ? output->out : output.error().message();
  }

  std::string folder_;
  std::string tar_;
};

TEST_F(Ext4Test, IsSoundAndHoldsTheTree) {
  const std::string image = write(read_tree(), "root.img");
  const auto fsck = run({.argv = {"e2fsck", "-fn", image},
                         .extra_environment = {"PATH=/usr/sbin:/sbin:/usr/bin:/bin"}});
  ASSERT_TRUE(fsck);
  EXPECT_EQ(fsck->exit.code, 0) << fsck->out << fsck->error;

  EXPECT_EQ(debugfs(image, "cat /bin/a"), "hello");
  EXPECT_EQ(debugfs(image, "cat /bin/b"), "hello");
  EXPECT_EQ(debugfs(image, "cat /bin/big"), kBig);
  EXPECT_EQ(debugfs(image, "cat /bin/sparse"), std::string(1 << 20, '\0') + "end");
  EXPECT_EQ(debugfs(image, "cat /bin/\xc3\xa4"), "not ASCII");
  EXPECT_THAT(debugfs(image, "stat /bin/b"), HasSubstr("Links: 2"));
  EXPECT_THAT(debugfs(image, "stat /bin/su"), HasSubstr("Mode:  04755"));
  EXPECT_THAT(debugfs(image, "stat /home"), HasSubstr("User: 100000   Group: 70000"));
  EXPECT_THAT(debugfs(image, "stat /lib"), HasSubstr("Fast link dest: \"usr/lib\""));
  EXPECT_EQ(debugfs(image, "cat /long"), "/" + std::string(200, 'l'));
  EXPECT_THAT(debugfs(image, "ea_list /bin/ping"), HasSubstr("security.capability"));
  EXPECT_THAT(debugfs(image, "stat /many/a-rather-long-file-name-499"), HasSubstr("regular"));
  // The one time, in every inode, whatever the tar file says.
  for (const char* path : {"/", "/bin", "/bin/a", "/lib", "/many", "/lost+found"}) {
    const std::string stat = debugfs(image, fmt::format("stat {}", path));
    for (const char* name : {"ctime", "atime", "mtime", "crtime"}) {
      EXPECT_THAT(stat, HasSubstr(fmt::format("{}: {:#x}:00000000", name, kTime))) << path;
    }
  }
  EXPECT_EQ(debugfs(image, "cat /bin/x.pyc"), pyc(kTime));
}

TEST_F(Ext4Test, TheSameTreeGivesTheSameBytes) {
  const Tree tree = read_tree();
  const std::string first = write(tree, "first.img");
  // Another folder, another second, another file of packages that differs only in time.
  std::filesystem::create_directory(folder_ + "/elsewhere");
  const auto later = std::filesystem::last_write_time(tar_);
  make_tar(tar_, 1'500'000'000);
  while (std::filesystem::last_write_time(tar_) == later) make_tar(tar_, 1'500'000'000);
  const std::string second = write(read_tree(), "elsewhere/second.img");
  EXPECT_EQ(hash(first), hash(second));

  // Control: what differs is seen.
  Tree other = tree;
  ASSERT_TRUE(other.set_mode("/bin/a", 0750));
  EXPECT_NE(hash(first), hash(write(other, "other.img")));
}

TEST_F(Ext4Test, ADeviceOrALostMemberIsAnError) {
  const auto with_device = read_tar_tree(tar_);
  ASSERT_TRUE(with_device);
  EXPECT_FALSE(write_ext4(*with_device, tar_, folder_ + "/a.img", {.time = kTime}));
  Tree tree = read_tree();
  ASSERT_TRUE(tree.put("/bin/ghost", Node{.size = 3, .content = ArchiveMember{"/bin/ghost"}}));
  const auto status = write_ext4(tree, tar_, folder_ + "/b.img", {.time = kTime});
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message(), HasSubstr("/bin/ghost"));
}

TEST_F(Ext4Test, ATornTarFileIsAnError) {
  std::filesystem::resize_file(tar_, 2'000'000);
  EXPECT_FALSE(read_tar_tree(tar_));
}

}  // namespace
}  // namespace agent_vm

// The workspace: both sides see each other's files with the right owners (M16).
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>

#include "base/text.h"
#include "confine/jail.h"
#include "confine/user_namespace.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using testing::HasSubstr;
using testing::Not;

class ShareTest : public RunningVmTest {
 protected:
  void SetUp() override {
    RunningVmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    auto map = system_id_map();
    ASSERT_TRUE(map);
    dev_ = map->outside_uid(kGuestDev);
    root_ = map->outside_uid(kGuestRoot);
  }

  static std::string host(const std::string& name) { return vm().workspace() + "/" + name; }
  static struct stat look(const std::string& name) {
    struct stat info {};
    EXPECT_EQ(::lstat(host(name).c_str(), &info), 0) << host(name) << ": " << errno_text(errno);
    return info;
  }
  // As the owner of the workspace would: root's own files would belong to nobody in the guest.
  void write_as_dev(const std::string& name, const std::string& text, mode_t mode = 0644) const {
    write_file(host(name), text);
    ASSERT_EQ(::chmod(host(name).c_str(), mode), 0);
    if (::geteuid() == 0) {
      ASSERT_EQ(::lchown(host(name).c_str(), dev_, dev_), 0);
    }
  }
  // Empty ones, "<top>/<folder>/f<file>", of dev's.
  void make_files(const std::string& top, int folders, int files) const {
    for (int folder = 0; folder < folders; ++folder) {
      const std::string path = fmt::format("{}/{}", top, folder);
      fs::create_directories(path);
      for (int file = 0; file < files; ++file) {
        const Fd fd(::open(fmt::format("{}/f{}", path, file).c_str(),
                           O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
        ASSERT_TRUE(fd);
      }
    }
    if (::geteuid() == 0) {
      ASSERT_TRUE(run_program({"chown", "-R", fmt::format("{}:{}", dev_, dev_), top}).ok());
    }
  }
  // Every object below the workspace belongs to one of the VM's ids, and none to the host's root.
  static std::string owned_by_host_root() {
    return run_program({"find", vm().workspace(), "(", "-uid", "0", "-o", "-gid", "0", ")"}).out;
  }

  uid_t dev_ = 0;
  uid_t root_ = 0;
};

TEST_F(ShareTest, M16_OwnersAreRightOnBothSides) {
  EXPECT_NE(dev_, root_);
  EXPECT_NE(root_, 0U);
  if (::geteuid() == 0) {
    EXPECT_NE(dev_, 0U);
  } else {
    EXPECT_EQ(dev_, ::getuid());
  }
  vm().guest_says("cd /workspace && echo of-dev > by-dev && mkdir dir-by-dev");
  vm().root_says("cd /workspace && echo of-root > by-root");
  EXPECT_EQ(look("by-dev").st_uid, dev_);
  EXPECT_EQ(look("dir-by-dev").st_uid, dev_);
  EXPECT_EQ(look("by-root").st_uid, root_);
  EXPECT_EQ(read_text(host("by-dev")), "of-dev\n");

  write_as_dev("by-host", "of-host\n");
  EXPECT_EQ(vm().guest_says("cd /workspace && stat -c '%u:%g %U' by-host by-dev by-root README.md"),
            "1000:1000 dev\n1000:1000 dev\n0:0 root\n1000:1000 dev");
  EXPECT_EQ(vm().guest_says("cat /workspace/by-host"), "of-host");
  // And both may change what the other made.
  vm().guest_says("echo more >> /workspace/by-host");
  EXPECT_EQ(read_text(host("by-host")), "of-host\nmore\n");
  EXPECT_EQ(owned_by_host_root(), "");
}

TEST_F(ShareTest, M16_NothingOwnedByTheHostsRootCanBeMade) {
  const std::string tried = vm().root_says(
      "cd /workspace && rm -rf ids && mkdir ids && cd ids\n"
      "for id in 0 1 999 1000 1001 65519 65520 65521 65530 65534 65535 65536 1879048192; do\n"
      "  touch $id; chown $id:$id $id 2>/dev/null && echo $id\n"
      "done; true");
  EXPECT_THAT(split_lines(tried), testing::IsSupersetOf({"0", "1", "999", "1000", "65519"}));
  // Ids of host-side programs, of the supervisor, and of nobody are out of reach.
  EXPECT_THAT(split_lines(tried), Not(testing::Contains("65530")));
  EXPECT_THAT(split_lines(tried), Not(testing::Contains("65520")));
  EXPECT_EQ(owned_by_host_root(), "");
  // The control: find would have said so.
  if (::geteuid() == 0) {
    write_file(host("ids/control"), "");
    EXPECT_EQ(owned_by_host_root(), host("ids/control") + "\n");
  }
  vm().root_says("rm -rf /workspace/ids");
}

TEST_F(ShareTest, M16_ModesLinksAndTimesSurvive) {
  vm().guest_says(
      "cd /workspace && rm -rf kinds && mkdir kinds && cd kinds\n"
      "echo x > file && chmod 640 file && touch -d '2020-02-03 04:05:06 UTC' file\n"
      "echo y > program && chmod 755 program\n"
      "ln file hard && ln -s file soft && ln -s /absolute/nowhere dangling\n"
      "mkdir sticky && chmod 1777 sticky && mkfifo fifo\n"
      "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'\n"
      "truncate -s 1G sparse && mkdir -p \"sp ace/ü\" && echo z > \"sp ace/ü/ñ\"");
  EXPECT_EQ(look("kinds/file").st_mode, S_IFREG | 0640U);
  EXPECT_EQ(look("kinds/file").st_mtime, 1580702706);
  EXPECT_EQ(look("kinds/program").st_mode, S_IFREG | 0755U);
  EXPECT_EQ(look("kinds/hard").st_ino, look("kinds/file").st_ino);
  EXPECT_EQ(look("kinds/file").st_nlink, 2U);
  EXPECT_EQ(fs::read_symlink(host("kinds/soft")), "file");
  EXPECT_EQ(fs::read_symlink(host("kinds/dangling")), "/absolute/nowhere");
  EXPECT_EQ(look("kinds/sticky").st_mode, S_IFDIR | 01777U);
  EXPECT_TRUE(S_ISFIFO(look("kinds/fifo").st_mode));
  EXPECT_TRUE(S_ISSOCK(look("kinds/socket").st_mode));
  EXPECT_EQ(look("kinds/sparse").st_size, 1 << 30);
  EXPECT_LT(look("kinds/sparse").st_blocks, 100);
  EXPECT_EQ(read_text(host("kinds/sp ace/ü/ñ")), "z\n");

  // The other way round.
  ASSERT_EQ(::chmod(host("kinds/program").c_str(), 0711), 0);
  ASSERT_EQ(::unlink(host("kinds/hard").c_str()), 0);
  EXPECT_EQ(vm().guest_says("cd /workspace/kinds && sleep 1; stat -c '%a %h' program file"),
            "711 1\n640 1");
}

TEST_F(ShareTest, M16_ExtendedAttributes) {
  vm().guest_says(
      "cd /workspace && touch attributes && python3 -c '"
      "import os; os.setxattr(\"attributes\", \"user.from\", b\"guest\")'");
  std::array<char, 64> value{};
  const ssize_t got =
      ::getxattr(host("attributes").c_str(), "user.from", value.data(), value.size());
  EXPECT_EQ(std::string(value.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0))),
            "guest");
  ASSERT_EQ(::setxattr(host("attributes").c_str(), "user.from", "host", 4, 0), 0);
  EXPECT_EQ(
      vm().guest_says("cd /workspace && python3 -c '"
                      "import os; print(os.getxattr(\"attributes\", \"user.from\").decode())'"),
      "host");
}

// virtiofsd has each of them open, for as long as the guest knows it.
TEST_F(ShareTest, M16_AsManyKnownFilesAsTheHostAllows) {
  constexpr int kFolders = 30;
  constexpr int kFiles = 1000;
  const auto allowed = allow_open_files();
  if (allowed < 40'000) GTEST_SKIP() << "this machine allows only " << allowed << " open files";
  const std::string top = host("known");
  make_files(top, kFolders, kFiles);
  if (HasFatalFailure()) return;
  EXPECT_EQ(vm().guest_says("find /workspace/known -type f -size 0 | wc -l"),
            std::to_string(kFolders * kFiles));
  fs::remove_all(top);
}

TEST_F(ShareTest, M16_AHundredThousandFiles) {
  // Made here, counted there, changed there, seen here.
  constexpr int kFolders = 100;
  constexpr int kFiles = 1000;
  const std::string top = host("many");
  make_files(top, kFolders, kFiles);
  if (HasFatalFailure()) return;
  EXPECT_EQ(vm().guest_says("find /workspace/many -type f | wc -l"),
            std::to_string(kFolders * kFiles));
  // Not only names: the attributes of a folder's files arrive, too.
  EXPECT_EQ(vm().guest_says("find /workspace/many/7 -type f -user dev -perm 644 -size 0 | wc -l"),
            std::to_string(kFiles));
  vm().guest_says("cd /workspace/many && rm -r 7 && mkdir 8/new && touch 8/new/from-guest");
  EXPECT_FALSE(fs::exists(top + "/7"));
  EXPECT_EQ(look("many/8/new/from-guest").st_uid, dev_);
  fs::remove_all(top);
  EXPECT_EQ(vm().guest_says("sleep 1; ls /workspace/many 2>/dev/null | wc -l"), "0");
}

TEST_F(ShareTest, M16_GitWorksOnBothSides) {
  vm().guest_says(
      "cd /workspace && echo change >> README.md && git -c user.name=dev "
      "-c user.email=dev@localhost commit -q -a -m 'From the guest'");
  EXPECT_EQ(git(vm().workspace(), {"log", "-1", "--format=%s"}), "From the guest");
  EXPECT_EQ(vm().guest_says("cd /workspace && git status --porcelain -- README.md src"), "");
}

}  // namespace
}  // namespace agent_vm::test

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "base/text.h"
#include "os/files.h"
#include "os/interrupt.h"
#include "os/lock.h"
#include "os/process_identity.h"
#include "os/run.h"
#include "os/sha256.h"

namespace agent_vm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

class Folder : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/os_test_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    path_ = path;
    dir_ = open_directory(path_).value();
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  std::string path_;
  Fd dir_;
};

using FilesTest = Folder;

TEST_F(FilesTest, WriteAtomicReplacesAndLeavesNoTemporary) {
  ASSERT_TRUE(write_file_atomic(dir_.get(), "a", "one", 0600));
  ASSERT_TRUE(write_file_atomic(dir_.get(), "a", "two", 0640));
  EXPECT_EQ(read_file_at(dir_.get(), "a", 100), "two");
  EXPECT_THAT(list_directory(dir_.get()).value(), testing::ElementsAre("a"));
  struct stat info {};
  ASSERT_EQ(::fstatat(dir_.get(), "a", &info, 0), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0640U);
}

TEST_F(FilesTest, CopyKeepsContentAndHoles) {
  constexpr off_t kSize = 64 << 20;
  const Fd from = open_beneath(dir_.get(), "from", O_RDWR | O_CREAT, 0600).value();
  ASSERT_EQ(::ftruncate(from.get(), kSize), 0);
  ASSERT_EQ(::pwrite(from.get(), "middle", 6, kSize / 2), 6);
  ASSERT_EQ(::lseek(from.get(), 100, SEEK_SET), 100);
  const Fd to = open_beneath(dir_.get(), "to", O_RDWR | O_CREAT, 0600).value();
  ASSERT_TRUE(copy_file(from.get(), to.get()));
  ASSERT_EQ(::lseek(from.get(), 0, SEEK_SET), 0);
  EXPECT_EQ(sha256_hex_of_file(to.get()).value(), sha256_hex_of_file(from.get()).value());
  struct stat copy {};
  ASSERT_EQ(::fstat(to.get(), &copy), 0);
  EXPECT_EQ(copy.st_size, kSize);
  EXPECT_LT(copy.st_blocks * 512, kSize / 8);
  // To another file system, by the slow way.
  const Fd memory(::memfd_create("copy", MFD_CLOEXEC));
  ASSERT_TRUE(copy_file(from.get(), memory.get()));
  ASSERT_EQ(::lseek(from.get(), 0, SEEK_SET), 0);
  EXPECT_EQ(sha256_hex_of_file(memory.get()).value(), sha256_hex_of_file(from.get()).value());
  const Fd nothing = open_beneath(dir_.get(), "nothing", O_RDWR | O_CREAT, 0600).value();
  const Fd copied = open_beneath(dir_.get(), "copied", O_RDWR | O_CREAT, 0600).value();
  EXPECT_TRUE(copy_file(nothing.get(), copied.get()));
}

TEST_F(FilesTest, S9_LinksAreRefusedAnywhereOnThePath) {
  std::filesystem::create_directory(path_ + "/real");
  ASSERT_TRUE(write_file_atomic(dir_.get(), "secret", "x", 0600));
  std::filesystem::create_symlink("real", path_ + "/folder_link");
  std::filesystem::create_symlink("../secret", path_ + "/real/file_link");
  EXPECT_FALSE(open_beneath(dir_.get(), "folder_link/x", O_RDONLY));
  EXPECT_FALSE(open_beneath(dir_.get(), "real/file_link", O_RDONLY));
  EXPECT_FALSE(open_beneath(dir_.get(), "../etc/passwd", O_RDONLY));
  EXPECT_FALSE(open_beneath(dir_.get(), "/etc/passwd", O_RDONLY));
  // The control: the same file by its own name opens, and plain open follows the link.
  EXPECT_TRUE(open_beneath(dir_.get(), "secret", O_RDONLY));
  EXPECT_TRUE(Fd(::open((path_ + "/real/file_link").c_str(), O_RDONLY | O_CLOEXEC)));
}

TEST_F(FilesTest, S28_PrivateDirectoryRefusesLinksAndSharedOnes) {
  EXPECT_TRUE(open_private_directory(path_ + "/new/deep"));
  std::filesystem::create_symlink(path_ + "/new", path_ + "/link");
  EXPECT_THAT(open_private_directory(path_ + "/link").error().message(),
              HasSubstr("symbolic link"));
  ::chmod((path_ + "/new").c_str(), 0777);
  EXPECT_THAT(open_private_directory(path_ + "/new").error().message(), HasSubstr("chmod go-w"));
}

TEST_F(FilesTest, RemoveTreeGoesAsDeepAsAnybodyCanNest) {
  ASSERT_TRUE(make_directory_at(dir_.get(), "tree", 0700));
  Fd at = open_beneath(dir_.get(), "tree", O_RDONLY | O_DIRECTORY).value();
  // Deeper than the descriptors of a process reach, and than a path can name.
  for (int depth = 0; depth < 3000; ++depth) {
    ASSERT_TRUE(make_directory_at(at.get(), "deeper", 0700));
    at = open_beneath(at.get(), "deeper", O_RDONLY | O_DIRECTORY).value();
  }
  at.reset();
  ASSERT_TRUE(remove_tree_at(dir_.get(), "tree"));
  EXPECT_THAT(list_directory(dir_.get()).value(), testing::IsEmpty());
}

TEST_F(FilesTest, RemoveTreeDoesNotFollowLinks) {
  std::filesystem::create_directories(path_ + "/tree/a/b");
  std::filesystem::create_directory(path_ + "/outside");
  const Fd outside = open_directory(path_ + "/outside").value();
  ASSERT_TRUE(write_file_atomic(outside.get(), "keep", "x", 0600));
  std::filesystem::create_directory_symlink(path_ + "/outside", path_ + "/tree/a/link");
  ASSERT_TRUE(remove_tree_at(dir_.get(), "tree"));
  EXPECT_FALSE(exists_at(dir_.get(), "tree"));
  EXPECT_TRUE(std::filesystem::exists(path_ + "/outside/keep"));
  EXPECT_TRUE(remove_tree_at(dir_.get(), "tree"));
}

TEST_F(FilesTest, ReadRefusesMoreThanTheLimit) {
  ASSERT_TRUE(write_file_atomic(dir_.get(), "a", std::string(100, 'x'), 0600));
  EXPECT_TRUE(read_file_at(dir_.get(), "a", 100));
  EXPECT_FALSE(read_file_at(dir_.get(), "a", 99));
}

using LockTest = Folder;

TEST_F(LockTest, F13_IsFreeAsSoonAsItsHolderIsKilled) {
  std::array<int, 2> ready{};
  ASSERT_EQ(::pipe(ready.data()), 0);
  const pid_t holder = ::fork();
  if (holder == 0) {
    const auto lock = DirectoryLock::acquire(dir_.get(), Deadline::never());
    static_cast<void>(::write(ready[1], "x", 1));
    ::pause();
    ::_exit(lock ? 0 : 1);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  const auto busy = DirectoryLock::acquire(dir_.get(), Deadline::in(30ms));
  ASSERT_FALSE(busy);
  EXPECT_EQ(busy.error().kind(), ErrorKind::kTimeout);
  ::kill(holder, SIGKILL);
  EXPECT_TRUE(DirectoryLock::acquire(dir_.get(), Deadline::in(5s)));
  ::waitpid(holder, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(Run, GivesInputAndCollectsBothStreams) {
  const auto output =
      run({.argv = {"sh", "-c", "cat; echo oops >&2; exit 3"}, .input = std::string(300'000, 'y')});
  ASSERT_TRUE(output);
  EXPECT_EQ(output->out.size(), 300'000U);
  EXPECT_EQ(output->error, "oops\n");
  EXPECT_EQ(output->exit.code, 3);
}

TEST(Run, NamesAMissingProgram) {
  const auto output = run({.argv = {"no-such-program-here"}});
  ASSERT_FALSE(output);
  EXPECT_EQ(output.error().kind(), ErrorKind::kMissing);
  EXPECT_THAT(output.error().message(), HasSubstr("no-such-program-here is not installed"));
}

TEST(Run, FindsProgramsThatAnOrdinaryUsersPathLeavesOut) {
  const std::string path = std::getenv("PATH");
  ASSERT_EQ(::setenv("PATH", "/usr/bin:/bin", 1), 0);
  const auto found = run({.argv = {"chroot", "--version"}});
  ASSERT_EQ(::setenv("PATH", path.c_str(), 1), 0);
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(found->exit.code, 0);
}

TEST(Run, M4_KillsTheWholeGroupAtTheDeadline) {
  const auto start = std::chrono::steady_clock::now();
  const auto output =
      run({.argv = {"sh", "-c", "sleep 100 & sleep 100"}, .deadline = Deadline::in(50ms)});
  ASSERT_FALSE(output);
  EXPECT_EQ(output.error().kind(), ErrorKind::kTimeout);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
}

TEST(Run, S26_TheEnvironmentIsAnAllowlist) {
  ::setenv("AGENT_VM_CANARY", "leak", 1);
  ::setenv("SSH_AUTH_SOCK", "/nowhere", 1);
  const auto output = run({.argv = {"env"}, .extra_environment = {"ADDED=1"}});
  ASSERT_TRUE(output);
  EXPECT_THAT(output->out, testing::Not(HasSubstr("CANARY")));
  EXPECT_THAT(output->out, testing::Not(HasSubstr("SSH_AUTH_SOCK")));
  EXPECT_THAT(output->out, HasSubstr("PATH="));
  EXPECT_THAT(output->out, HasSubstr("ADDED=1"));
}

TEST(Spawn, AnErrorOfTheChildsKeepsItsKindAndWhatMendsIt) {
  SpawnSpec spec;
  spec.argv = {"true"};
  spec.in_child = []() -> Status {
    return tl::unexpected(Error(ErrorKind::kMissing, "two\nlines").with_hint("mend it"));
  };
  const auto child = spawn(spec);
  ASSERT_FALSE(child);
  EXPECT_EQ(child.error().kind(), ErrorKind::kMissing);
  EXPECT_EQ(child.error().message(), "two\nlines");
  EXPECT_EQ(child.error().hint(), "mend it");
}

TEST(Run, OnlyListedDescriptorsReachTheChild) {
  const Fd extra(::open("/dev/null", O_RDONLY));  // deliberately without O_CLOEXEC
  const auto output = run({.argv = {"sh", "-c", "ls /proc/self/fd | wc -l"}});
  ASSERT_TRUE(output);
  EXPECT_EQ(std::string(trim(output->out)), "4");  // 0, 1, 2 and the one of ls itself
}

TEST(ProcessIdentity, F3_AReusedPidIsAnotherProcess) {
  const auto self = identify(::getpid());
  ASSERT_TRUE(self);
  EXPECT_TRUE(is_running(*self));
  auto earlier = *self;
  earlier.start_time -= 1;
  EXPECT_FALSE(is_running(earlier));
  auto other_boot = *self;
  other_boot.boot_id = "00000000-0000-0000-0000-000000000000";
  EXPECT_FALSE(is_running(other_boot));
}

TEST(Sha256, MatchesTheStandardsExamples) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const Fd read(ends[0]);
  Fd write(ends[1]);
  ASSERT_TRUE(write_all(write.get(), "abc"));
  write.reset();
  EXPECT_EQ(sha256_hex_of_file(read.get()), sha256_hex("abc"));
}

TEST(Interrupt, ASignalEndsTheProgramThatRunsAndIsAnErrorOfItsOwnKind) {
  const auto watch = InterruptWatch::start().value();
  EXPECT_TRUE(watch.check());
  const pid_t self = ::getpid();
  Command command{.argv = {"sh", "-c", fmt::format("kill -TERM {}; exec sleep 60", self)}};
  command.interrupt_fd = watch.fd();
  command.deadline = Deadline::in(20s);
  EXPECT_EQ(run(command).error().kind(), ErrorKind::kInterrupted);
  EXPECT_EQ(watch.check().error().kind(), ErrorKind::kInterrupted);
  // Taken, so that it does not end the test program.
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  siginfo_t info{};
  EXPECT_EQ(::sigwaitinfo(&term, &info), SIGTERM);
}

}  // namespace
}  // namespace agent_vm

// M17: one lock file gives the same bytes across folders, users and clocks. S27, F9: what is
// damaged or half-built is never used.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pwd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "os/files.h"
#include "os/run.h"
#include "os/spawn.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

// A user who may build images without root: the first one with subordinate ids.
std::string ordinary_user() {
  std::ifstream subuid("/etc/subuid");
  for (std::string line; std::getline(subuid, line);) {
    const std::string name = line.substr(0, line.find(':'));
    const passwd* entry = ::getpwnam(name.c_str());  // NOLINT(concurrency-mt-unsafe)
    if (entry != nullptr && entry->pw_uid != 0) return name;
  }
  return "";
}

class ImageBuildTest : public testing::Test {
 protected:
  // One folder, one lock and one image for all tests: installing the packages takes minutes.
  static void SetUpTestSuite() {
    // Not below a private home: the ordinary user must get there too.
    std::string path = "/var/tmp/image_build_test_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
    suite_folder_ = path;
    lock_ = path + "/image.lock";
    const auto locked = run(command(make_folder(path + "/lock"), {"lock", "--output", lock_}));
    ASSERT_TRUE(locked && locked->ok()) << (locked ? locked->error : locked.error().message());
    first_cache_ = make_folder(path + "/first");
    first_ = build(command(first_cache_, {"build", "--lock", lock_, "--json"}));
  }
  static void TearDownTestSuite() {
    if (testing::UnitTest::GetInstance()->Failed()) {
      GTEST_LOG_(INFO) << "kept for inspection: " << suite_folder_;
    } else {
      fs::remove_all(suite_folder_);
    }
  }
  void SetUp() override {
    ASSERT_FALSE(first_.is_null()) << "there is no image to begin with";
    folder_ = make_folder(suite_folder_ + "/" +
                          testing::UnitTest::GetInstance()->current_test_info()->name());
  }

  static std::string make_folder(const std::string& path, const std::string& user = "") {
    fs::create_directory(path);
    if (!user.empty()) {
      const passwd* entry = ::getpwnam(user.c_str());  // NOLINT(concurrency-mt-unsafe)
      EXPECT_EQ(::chown(path.c_str(), entry->pw_uid, entry->pw_gid), 0);
    }
    return path;
  }
  // A cache that holds what the first build kept, but no image.
  std::string seeded_cache(const std::string& path, bool with_installed_packages) const {
    make_folder(path + "/agent-vm");
    for (const char* kept : {"packages", "bases"}) {
      fs::create_directory(path + "/agent-vm/" + kept);
      fs::permissions(path + "/agent-vm/" + kept, fs::perms(0700));
      if (std::string_view(kept) == "bases" && !with_installed_packages) continue;
      fs::copy(first_cache_ + "/agent-vm/" + kept, path + "/agent-vm/" + kept);
    }
    fs::permissions(path + "/agent-vm", fs::perms(0700));
    return path;
  }

  // Runs agent-vm with a cache of its own, and perhaps as somebody else.
  static Command command(const std::string& cache, std::vector<std::string> arguments,
                         const std::string& user = "", const std::string& path_prefix = "") {
    Command command;
    if (!user.empty()) {
      command.argv = {"setpriv", "--reuid=" + user, "--regid=" + user, "--init-groups"};
    }
    // The one of the build tree, or an installed one.
    const char* program = std::getenv("AGENT_VM");  // NOLINT(concurrency-mt-unsafe)
    command.argv.emplace_back(program != nullptr ? program : AGENT_VM_BINARY);
    command.argv.emplace_back("image");
    command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
    command.environment = {{"PATH=" + path_prefix + "/usr/sbin:/usr/bin:/sbin:/bin",
                            "HOME=" + cache, "XDG_CACHE_HOME=" + cache}};
    command.working_directory = "/";
    return command;
  }
  static json build(const Command& command) {
    const auto output = run(command);
    EXPECT_TRUE(output && output->ok())
        << (output ? output->error + output->out : output.error().message());
    return output && output->ok() ? json::parse(output->out) : json();
  }
  static void expect_no_image(const std::string& cache) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(cache + "/agent-vm/images", error)) {
      ADD_FAILURE() << "left behind: " << entry.path();
    }
  }

  static inline std::string suite_folder_;
  static inline std::string lock_;
  static inline std::string first_cache_;
  static inline json first_;
  std::string folder_;
};

TEST_F(ImageBuildTest, M17_OneLockGivesTheSameBytesAcrossFoldersUsersAndClocks) {
  const bool root = ::geteuid() == 0;
  const std::string user = root ? ordinary_user() : "";
  if (root && user.empty()) GTEST_SKIP() << "needs: an ordinary user with subordinate ids";

  // Another folder, another user, another year, another umask.
  fs::create_directory(folder_ + "/bin");
  fs::create_symlink(OTHER_CLOCK, folder_ + "/bin/mmdebstrap");
  fs::copy(OTHER_CLOCK_LIBRARY, folder_ + "/bin/other_clock.so");
  const json second = build(command(make_folder(folder_ + "/a-longer-name", user),
                                    {"build", "--lock", lock_, "--json"}, user, folder_ + "/bin:"));
  ASSERT_FALSE(second.is_null());
  EXPECT_EQ(first_["key"], second["key"]);
  EXPECT_EQ(second["reused"], false);
  EXPECT_NE(first_["directory"], second["directory"]);
  for (const char* what : {"root_sha256", "kernel_sha256", "initramfs_sha256"}) {
    EXPECT_EQ(first_[what], second[what]) << what;
  }

  // Control: another moment, of the same installed packages, is another image.
  json later = json::parse(std::ifstream(lock_));
  later["time"] = later["time"].get<std::uint64_t>() + 86400;
  std::ofstream(folder_ + "/other.lock") << later.dump();
  const json third =
      build(command(first_cache_, {"build", "--lock", folder_ + "/other.lock", "--json"}));
  ASSERT_FALSE(third.is_null());
  EXPECT_NE(first_["root_sha256"], third["root_sha256"]);
  EXPECT_EQ(first_["kernel_sha256"], third["kernel_sha256"]);
}

TEST_F(ImageBuildTest, TwoBuildsAtOnceBuildOnce) {
  const std::string cache = seeded_cache(make_folder(folder_ + "/cache"), true);
  const Command one = command(cache, {"build", "--lock", lock_, "--json"});
  SpawnSpec spec{.argv = one.argv, .environment = *one.environment};
  const Fd log(::open((folder_ + "/first.json").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
  spec.descriptors = {{log.get(), 1}};
  auto child = spawn(spec);
  ASSERT_TRUE(child) << child.error().message();
  const auto second = run(one);
  const auto exit = child->wait();
  ASSERT_TRUE(second && second->ok() && exit && exit->code == 0);
  const json a = json::parse(std::ifstream(folder_ + "/first.json"));
  const json b = json::parse(second->out);
  EXPECT_EQ(a["key"], b["key"]);
  EXPECT_NE(a["reused"], b["reused"]);
  EXPECT_EQ(a["root_sha256"], first_["root_sha256"]);
  // The one that came second said why it waited.
  if (a["reused"] == false) {
    EXPECT_THAT(second->error, HasSubstr("Waiting for another image build"));
  }
}

TEST_F(ImageBuildTest, InterruptedWhileItInstallsLeavesNothing) {
  const std::string cache = seeded_cache(make_folder(folder_ + "/cache"), false);
  const std::string temporary = make_folder(folder_ + "/tmp");
  Command build = command(cache, {"build", "--lock", lock_});
  build.environment->push_back("TMPDIR=" + temporary);
  SpawnSpec spec{.argv = build.argv, .environment = *build.environment};
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const Fd read_end(ends[0]);
  Fd write_end(ends[1]);
  spec.descriptors = {{write_end.get(), 2}};
  auto child = spawn(spec);
  ASSERT_TRUE(child) << child.error().message();
  write_end.reset();
  // The step that says so has begun when the line comes.
  std::string seen;
  std::array<char, 256> buffer{};
  while (seen.find("Installing packages") == std::string::npos) {
    const ssize_t got = ::read(read_end.get(), buffer.data(), buffer.size());
    ASSERT_GT(got, 0) << seen;
    seen.append(buffer.data(), static_cast<std::size_t>(got));
  }
  // Until a tree is there to be left behind.
  const auto tree_exists = [&] {
    for (const auto& scratch : fs::directory_iterator(temporary)) {
      std::error_code error;
      for (const auto& tree : fs::directory_iterator(scratch.path() / "tmp", error)) {
        if (fs::exists(tree.path() / "usr/bin/dpkg", error)) return true;
      }
    }
    return false;
  };
  const auto patience = Deadline::in(std::chrono::minutes(5));
  while (!tree_exists() && !patience.expired()) {
    pollfd ended{child->pidfd(), POLLIN, 0};
    ASSERT_EQ(::poll(&ended, 1, 20), 0) << "the build ended by itself";
  }
  ASSERT_TRUE(child->signal(SIGINT));
  const auto exit = child->wait(Deadline::in(std::chrono::minutes(3)));
  ASSERT_TRUE(exit) << exit.error().message();
  // Ended by the signal, after it has cleaned up: 130 in a shell.
  EXPECT_EQ(exit->signal, SIGINT) << exit->describe();
  expect_no_image(cache);
  EXPECT_TRUE(fs::is_empty(temporary));
  const std::string mounts = read_file("/proc/self/mountinfo", 16U << 20U).value();
  EXPECT_EQ(mounts.find(temporary), std::string::npos);
}

TEST_F(ImageBuildTest, F9_AFullDiskEndsClearlyAndLeavesNothing) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs: root, to mount a small file system";
  const std::string small = make_folder(folder_ + "/small");
  const auto mount_small = [&](const char* options) {
    ASSERT_EQ(::mount("none", small.c_str(), "tmpfs", 0, options), 0);
  };
  // Too small for the packages.
  const std::string cache = seeded_cache(make_folder(folder_ + "/cache"), false);
  mount_small("size=300m,mode=0755");
  Command build = command(cache, {"build", "--lock", lock_});
  build.environment->push_back("TMPDIR=" + small);
  auto output = run(build);
  EXPECT_TRUE(fs::is_empty(small));
  ASSERT_EQ(::umount(small.c_str()), 0);
  ASSERT_TRUE(output);
  EXPECT_EQ(output->exit.code, 1);
  EXPECT_THAT(output->error, HasSubstr("the disk is full"));
  EXPECT_THAT(output->error, HasSubstr("TMPDIR"));
  expect_no_image(cache);

  // Too small for the image.
  mount_small("size=1000m,mode=0755");
  seeded_cache(small, true);
  output = run(command(small, {"build", "--lock", lock_}));
  expect_no_image(small);
  ASSERT_EQ(::umount(small.c_str()), 0);
  ASSERT_TRUE(output);
  EXPECT_EQ(output->exit.code, 1);
  EXPECT_THAT(output->error, HasSubstr("No space left on device"));
}

TEST_F(ImageBuildTest, M4_TimeoutBoundsABuild) {
  const std::string cache = seeded_cache(make_folder(folder_ + "/cache"), false);
  const std::string temporary = make_folder(folder_ + "/tmp");
  Command build = command(cache, {"build", "--lock", lock_});
  build.argv.insert(build.argv.end() - 4, {"--timeout", "3"});
  build.environment->push_back("TMPDIR=" + temporary);
  const auto begin = Deadline::Clock::now();
  const auto output = run(build);
  ASSERT_TRUE(output);
  EXPECT_EQ(output->exit.code, 6) << output->error;
  EXPECT_LT(Deadline::Clock::now() - begin, std::chrono::seconds(15));
  EXPECT_TRUE(fs::is_empty(temporary));
  expect_no_image(cache);
}

TEST_F(ImageBuildTest, SourcesThatCannotBeReachedAreSaid) {
  const std::string cache = make_folder(folder_ + "/cache");
  Command build = command(cache, {"build"});
  // No network at all: a network namespace of its own.
  std::vector<std::string> offline{"unshare", "--net"};
  if (::geteuid() != 0) offline = {"unshare", "--user", "--map-auto", "--map-root-user", "--net"};
  build.argv.insert(build.argv.begin(), offline.begin(), offline.end());
  const auto output = run(build);
  ASSERT_TRUE(output);
  EXPECT_EQ(output->exit.code, 1);
  EXPECT_THAT(output->error, HasSubstr("cannot fetch the package lists"));
  EXPECT_THAT(output->error, HasSubstr("apt-get update"));
  expect_no_image(cache);
}

TEST_F(ImageBuildTest, AUserWithoutSubordinateIdsIsToldSoAtOnce) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs: root, to become a user without subordinate ids";
  const std::string cache = make_folder(folder_ + "/cache", "nobody");
  Command build = command(cache, {"build"}, "nobody");
  build.argv[2] = "--regid=nogroup";
  const auto output = run(build);
  ASSERT_TRUE(output);
  EXPECT_EQ(output->exit.code, 7) << output->error;
  EXPECT_THAT(output->error, HasSubstr("subordinate ids"));
  expect_no_image(cache);
}

TEST_F(ImageBuildTest, ALockFileThatDoesNotFitIsRefused) {
  const std::string cache = make_folder(folder_ + "/cache");
  const auto expect_refused = [&](std::vector<std::string> arguments, const std::string& message) {
    arguments.insert(arguments.begin(), "build");
    const auto output = run(command(cache, arguments));
    ASSERT_TRUE(output);
    EXPECT_EQ(output->exit.code, 2) << output->error;
    EXPECT_THAT(output->error, HasSubstr(message));
  };
  expect_refused({"--lock", lock_, "--variant", "build-tools"}, "another choice of packages");
  expect_refused({"--lock", folder_ + "/none"}, "none");
  std::ofstream(folder_ + "/torn") << "{\"schema\": 1,";
  expect_refused({"--lock", folder_ + "/torn"}, "is not JSON");
  json short_of_one = json::parse(std::ifstream(lock_));
  auto& packages = short_of_one["packages"];
  for (auto at = packages.begin(); at != packages.end(); ++at) {
    if ((*at)["name"] == "git") {
      packages.erase(at);
      break;
    }
  }
  std::ofstream(folder_ + "/short") << short_of_one.dump();
  expect_refused({"--lock", folder_ + "/short"}, "lacks the package git");
  json with_npm = json::parse(std::ifstream(lock_));
  with_npm["npm"] = {{"package.json", json::object()}, {"package-lock.json", json::object()}};
  std::ofstream(folder_ + "/npm") << with_npm.dump();
  expect_refused({"--lock", folder_ + "/npm"}, "packages of npm's that nothing asks for");
  expect_refused({"--variant", "huge"}, "no image variant 'huge'");
  expect_refused({"--variant", "build-tools+huge"}, "no image variant 'huge'");
  expect_refused({"--package", "no such"}, "not the name of a Debian package");
  expect_no_image(cache);
}

// A package whose bytes are not what the lock says never gets into an image.
TEST_F(ImageBuildTest, S27_AChangedPackageIsRefused) {
  const std::string cache = seeded_cache(make_folder(folder_ + "/cache"), false);
  const std::string packages = cache + "/agent-vm/packages";
  const fs::path victim = fs::directory_iterator(packages)->path();
  std::ofstream(victim, std::ios::app) << "more";
  auto output = run(command(cache, {"build", "--lock", lock_}));
  ASSERT_TRUE(output);
  EXPECT_EQ(output->exit.code, 1);
  EXPECT_THAT(output->error, HasSubstr("was damaged"));
  EXPECT_FALSE(fs::exists(victim));
  expect_no_image(cache);
}

}  // namespace
}  // namespace agent_vm

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "os/files.h"
#include "state/ports.h"
#include "state/source_repository.h"
#include "state/state_directory.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class StateTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/state_test_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    path_ = fs::canonical(path);
  }
  void TearDown() override { fs::remove_all(path_); }

  StateDirectory state() { return StateDirectory::open_or_make(path_ + "/vms").value(); }

  VmConfig config(const std::string& name) {
    VmConfig config;
    config.name = name;
    config.branch = "main";
    config.created_at = utc_now();
    config.port = 8000;
    config.ssh_port = 2222;
    config.workspace_path = path_ + "/vms/" + name + "/workspace";
    config.ssh_key_path = path_ + "/vms/" + name + "/ssh/id_ed25519";
    config.source_repo = path_ + "/repo";
    return config;
  }

  VmDirectory make_vm(const StateDirectory& state, const VmConfig& config) {
    NewVmDirectory fresh = NewVmDirectory::make(state).value();
    EXPECT_TRUE(write_file_atomic(fresh.fd(), "config.json", to_json_text(config), 0600));
    EXPECT_TRUE(fresh.commit(config.name));
    return state.vm(config.name).value();
  }

  void write(const std::string& path, std::string_view text) { std::ofstream(path) << text; }

  std::vector<std::string> entries(const std::string& path) {
    return list_directory(open_directory(path).value().get()).value();
  }

  std::string path_;
};

TEST_F(StateTest, ConfigSurvivesAndSecondCreationIsRefusedInTheKnownWords) {
  const StateDirectory state = this->state();
  const VmDirectory vm = make_vm(state, config("a"));
  EXPECT_EQ(vm.read_config().value(), config("a"));
  EXPECT_THAT(state.names().value(), ElementsAre("a"));
  {
    NewVmDirectory second = NewVmDirectory::make(state).value();
    EXPECT_THAT(second.commit("a").error().message(), HasSubstr("VM configuration already exists"));
  }
  EXPECT_THAT(entries(state.path()), ElementsAre("a"));
  struct stat info {};
  ASSERT_EQ(::stat(vm.path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777U, 0700U);
}

TEST_F(StateTest, S28_PlantedLinksAndForeignDirectoriesAreRefused) {
  const StateDirectory state = this->state();
  fs::create_directory(path_ + "/elsewhere");
  fs::create_directory_symlink(path_ + "/elsewhere", path_ + "/link");
  EXPECT_THAT(StateDirectory::open(path_ + "/link").error().message(), HasSubstr("link"));
  // A link in place of a VM, and one in place of its configuration.
  fs::create_directory_symlink(path_ + "/elsewhere", state.path() + "/a");
  EXPECT_THAT(state.vm("a").error().message(), HasSubstr("link"));
  EXPECT_THAT(state.names().value(), IsEmpty());
  const VmDirectory vm = make_vm(state, config("b"));
  fs::rename(vm.path() + "/config.json", path_ + "/config.json");
  fs::create_symlink(path_ + "/config.json", vm.path() + "/config.json");
  EXPECT_THAT(vm.read_config().error().message(), HasSubstr("link"));
  // The control: the same file in its place is read.
  fs::remove(vm.path() + "/config.json");
  fs::rename(path_ + "/config.json", vm.path() + "/config.json");
  EXPECT_TRUE(vm.read_config());
  ASSERT_EQ(::chmod(state.path().c_str(), 0777), 0);
  EXPECT_THAT(StateDirectory::open(state.path()).error().message(), HasSubstr("others can write"));
}

TEST_F(StateTest, F11_ATornRecordIsQuarantinedAndReportedAndNeverLost) {
  const StateDirectory state = this->state();
  const VmDirectory vm = make_vm(state, config("a"));
  const std::string whole = to_json_text(config("a"));
  const std::string torn = whole.substr(0, whole.size() / 2);
  write(vm.path() + "/config.json", torn);
  const auto error = vm.read_config().error();
  EXPECT_THAT(error.message(), HasSubstr("cannot be understood"));
  EXPECT_THAT(error.hint(), HasSubstr("config.json.corrupt-"));
  const auto left = entries(vm.path());
  ASSERT_EQ(left.size(), 1U);
  EXPECT_THAT(left[0], HasSubstr("config.json.corrupt-"));
  EXPECT_EQ(read_file(vm.path() + "/" + left[0], 1U << 20U), torn);
  EXPECT_THAT(vm.read_config().error().message(), HasSubstr("no configuration"));
  // As the hint says: repaired and renamed, it is back.
  write(vm.path() + "/config.json", whole);
  EXPECT_TRUE(vm.read_config());
}

TEST_F(StateTest, F20_ARecordOfANewerVersionIsRefusedAndLeftAlone) {
  const StateDirectory state = this->state();
  const VmDirectory vm = make_vm(state, config("a"));
  write(vm.path() + "/config.json", R"({"schema": 99})");
  EXPECT_THAT(vm.read_config().error().message(), HasSubstr("newer agent-vm"));
  write(vm.path() + "/run.json", R"({"schema": 99})");
  EXPECT_THAT(vm.read_run().error().message(), HasSubstr("another version"));
  EXPECT_THAT(entries(vm.path()), ElementsAre("config.json", "run.json"));
}

TEST_F(StateTest, F2_F3_ARunRecordOfAnotherBootOrAnotherProcessIsStale) {
  const StateDirectory state = this->state();
  const VmDirectory vm = make_vm(state, config("a"));
  EXPECT_EQ(vm.read_run().value(), std::nullopt);
  RunRecord record{
      identify(::getpid()).value(), utc_now(), "127.0.0.1", 8000, 2222, Accel::kTcg, "key"};
  ASSERT_TRUE(vm.write_run(record));
  EXPECT_EQ(vm.read_run().value(), record);
  EXPECT_FALSE(vm.read_run().value()->is_stale());  // the control: this very process runs
  record.supervisor.boot_id = "another boot";
  EXPECT_TRUE(record.is_stale());
  record.supervisor = identify(::getpid()).value();
  record.supervisor.start_time += 1;
  EXPECT_TRUE(record.is_stale());
  ASSERT_TRUE(vm.remove_run());
  ASSERT_TRUE(vm.remove_run());
  EXPECT_EQ(vm.read_run().value(), std::nullopt);
  write(vm.path() + "/run.json", "{\"schema\": 1, \"superv");
  EXPECT_EQ(vm.read_run().value(), std::nullopt);
  EXPECT_THAT(entries(vm.path()), ElementsAre("config.json", HasSubstr("run.json.corrupt-")));
}

TEST_F(StateTest, F13_ALockHeldByAKilledProcessIsFreeAtOnce) {
  const StateDirectory state = this->state();
  const VmDirectory vm = make_vm(state, config("a"));
  std::array<int, 2> ready{};
  ASSERT_EQ(::pipe(ready.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto lock = vm.lock(Deadline::never());
    static_cast<void>(::write(ready[1], "x", 1));
    ::pause();
    ::_exit(lock ? 0 : 1);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_EQ(vm.lock(Deadline::in(50ms)).error().kind(), ErrorKind::kTimeout);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(vm.lock(Deadline::in(50ms)));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(StateTest, ALockOnAVmThatWasDestroyedMeanwhileIsNotFound) {
  const StateDirectory state = this->state();
  const VmDirectory vm = make_vm(state, config("a"));
  ASSERT_TRUE(vm.lock(Deadline::in(50ms)));
  fs::rename(vm.path(), path_ + "/gone");
  EXPECT_EQ(vm.lock(Deadline::in(50ms)).error().kind(), ErrorKind::kNotFound);
}

TEST_F(StateTest, ACreationThatWasKilledLeavesNothingAfterTheNextCommand) {
  const StateDirectory state = this->state();
  fs::create_directories(state.path() + "/.create-dead/workspace");
  const NewVmDirectory alive = NewVmDirectory::make(state).value();
  const auto again = StateDirectory::open_or_make(state.path());
  ASSERT_TRUE(again);
  EXPECT_THAT(entries(state.path()), ElementsAre(fs::path(alive.path()).filename().string()));
}

TEST_F(StateTest, ResolvesNamesBranchesAndTheCurrentBranch) {
  const StateDirectory state = this->state();
  make_vm(state, config("repo-main"));
  VmConfig other = config("other-main");
  other.source_repo = path_ + "/other";
  make_vm(state, other);
  VmConfig feature = config("repo-feature-x");
  feature.branch = "feature/x";
  make_vm(state, feature);
  fs::create_directories(path_ + "/repo/.git");
  fs::create_directories(path_ + "/repo/deep/er");
  write(path_ + "/repo/.git/HEAD", "ref: refs/heads/feature/x\n");

  const auto resolve = [&](std::optional<std::string> argument, const std::string& directory) {
    const auto vm = resolve_vm(state, argument, directory);
    return vm ? vm->name() : vm.error().message();
  };
  const std::string repo = path_ + "/repo";
  EXPECT_EQ(resolve("other-main", repo), "other-main");
  EXPECT_EQ(resolve("feature/x", "/"), "repo-feature-x");
  EXPECT_EQ(resolve("main", repo), "repo-main");  // the current repository's before others
  EXPECT_THAT(resolve("main", "/"), HasSubstr("could be any of: other-main, repo-main"));
  EXPECT_EQ(resolve(std::nullopt, repo + "/deep/er"), "repo-feature-x");
  EXPECT_EQ(resolve(std::nullopt, state.path() + "/other-main/workspace/x"), "other-main");
  EXPECT_THAT(resolve("repo-mian", repo), HasSubstr("did you mean 'repo-main'?"));
  EXPECT_THAT(resolve("../repo-main", repo), HasSubstr("there is no VM"));
  EXPECT_THAT(resolve(std::nullopt, "/"), HasSubstr("not in a git repository"));
  write(repo + "/.git/HEAD", "0123456789abcdef0123456789abcdef01234567\n");
  EXPECT_THAT(resolve(std::nullopt, repo), HasSubstr("detached-0123456789ab"));
}

// A listener on a port of the kernel's choice.
struct Listener {
  Listener() : fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(fd.get(), raw, size), 0);
    EXPECT_EQ(::listen(fd.get(), 1), 0);
    EXPECT_EQ(::getsockname(fd.get(), raw, &size), 0);
    port = ntohs(address.sin_port);
  }
  Fd fd;
  std::uint16_t port = 0;
};

TEST_F(StateTest, F17_PortsOfOtherVmsAndOfAnybodyElseAreNotChosen) {
  const StateDirectory state = this->state();
  Listener busy;
  PortRequest request{.address = "127.0.0.1", .asked = busy.port, .what = "MCP port"};
  EXPECT_THAT(choose_port(state, request).error().message(), HasSubstr("Address already in use"));
  request = {.address = "127.0.0.1", .first = busy.port};
  EXPECT_GT(choose_port(state, request).value(), busy.port);

  // The control: once it is free it is chosen, until a VM has it.
  busy.fd.reset();
  EXPECT_EQ(choose_port(state, request).value(), busy.port);
  request.avoid = busy.port;
  EXPECT_NE(choose_port(state, request).value(), busy.port);
  request.avoid.reset();
  VmConfig owner = config("owner");
  owner.port = busy.port;
  make_vm(state, owner);
  EXPECT_GT(choose_port(state, request).value(), busy.port);
  request.asked = busy.port;
  EXPECT_THAT(choose_port(state, request).error().message(), HasSubstr("taken by VM 'owner'"));
  request.except_vm = "owner";
  EXPECT_EQ(choose_port(state, request).value(), busy.port);
}

TEST_F(StateTest, ABindAddressMustBeOneOfThisMachine) {
  EXPECT_EQ(resolve_bind_address("localhost").value(), "127.0.0.1");
  EXPECT_EQ(resolve_bind_address("127.0.0.1").value(), "127.0.0.1");
  EXPECT_EQ(resolve_bind_address("0.0.0.0").value(), "0.0.0.0");
  // TEST-NET-1, which no machine has.
  EXPECT_THAT(resolve_bind_address("192.0.2.1").error().message(),
              HasSubstr("not an address of this machine"));
  EXPECT_FALSE(resolve_bind_address("no such host"));
}

TEST(Credentials, AreStrippedFromUrlsAndNothingElseIs) {
  EXPECT_EQ(without_credentials("https://user:pw@example.org/r.git"), "https://example.org/r.git");
  EXPECT_EQ(without_credentials("https://token@example.org:8443/r"), "https://example.org:8443/r");
  EXPECT_EQ(without_credentials("https://a@b:c@example.org/r"), "https://example.org/r");
  EXPECT_EQ(without_credentials("https://example.org/r?private_token=x#y"),
            "https://example.org/r");
  EXPECT_EQ(without_credentials("ssh://git:pw@example.org/r"), "ssh://git@example.org/r");
  for (const auto* plain : {"git@example.org:o/r.git", "https://example.org/o/r.git", "/srv/r.git",
                            "../r", "ssh://git@example.org:22/r", "file:///srv/a@b/r"}) {
    EXPECT_EQ(without_credentials(plain), plain);
  }
}

TEST(Shareable, S12_RefusesSecretsAndWhatContainsThem) {
  const auto refused = [](const std::string& path) {
    return !check_shareable(path, "/home/u", "/home/u/.local/share/agent-vms");
  };
  for (const auto* path :
       {"/", "/home", "/home/u", "/home/u/.ssh", "/home/u/.ssh/repo", "/srv/.gnupg",
        "/home/u/.local/share/agent-vms", "/home/u/.local/share/agent-vms/x/workspace",
        "/home/u/.config/agent-vm"}) {
    EXPECT_TRUE(refused(path)) << path;
  }
  for (const auto* path : {"/home/u/repo", "/home/other", "/home/user2", "/srv/ssh", "/srv/x.ssh",
                           "/home/u/.local/share/agent-vms-notes"}) {
    EXPECT_FALSE(refused(path)) << path;
  }
}

}  // namespace
}  // namespace agent_vm

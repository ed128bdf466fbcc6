// S8: requests that no guest's kernel would send. A virtiofsd in the very jail that the launch plan
// describes gets them straight from a test that plays a guest which drives the device itself.
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <filesystem>

#include "base/text.h"
#include "confine/jail.h"
#include "confine/user_namespace.h"
#include "os/files.h"
#include "os/socket_address.h"
#include "support/fuse_client.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

JailMount::Kind kind_of(const std::string& name) {
  if (name == "bind") return JailMount::Kind::kBind;
  if (name == "bind-read-only") return JailMount::Kind::kBindReadOnly;
  if (name == "device") return JailMount::Kind::kDevice;
  if (name == "tmpfs") return JailMount::Kind::kTmpfs;
  EXPECT_EQ(name, "symlink");
  return JailMount::Kind::kSymlink;
}

Jail jail_of(const json& plan) {
  Jail jail;
  for (const auto& mount : plan["mounts"])
    jail.mounts.push_back({kind_of(mount["kind"]), mount.value("source", ""), mount["target"]});
  for (const auto& range : plan["ids"])
    jail.ids.push_back({range["inside"], range["outside"], range["count"]});
  jail.uid = plan["uid"];
  jail.gid = plan["gid"];
  jail.capabilities = plan["capabilities"].get<std::vector<int>>();
  // The limit of the tests' own process, which may be lower than a supervisor's.
  jail.max_open_files = 1024;
  return jail;
}

// A process that becomes what a supervisor is, and starts the plan's virtiofsd as it does.
Child start_virtiofsd(const json& plan, int listener) {
  SpawnSpec inner;
  inner.argv = plan["argv"].get<std::vector<std::string>>();
  inner.environment = plan["environment"].get<std::vector<std::string>>();
  for (const auto& descriptor : plan["descriptors"]) {
    const bool log = descriptor["use"] == "log";
    inner.descriptors.push_back({log ? 2 : 3, descriptor["number"].get<int>()});
  }
  const Jail jail = jail_of(plan["jail"]);
  SpawnSpec outer;
  outer.argv = {"launcher"};
  outer.descriptors = {{2, 2}, {listener, 3}};
  outer.main_instead_of_exec = [inner, jail] {
    const auto ids = system_id_map();
    if (!ids || !enter_user_namespace(*ids)) return 1;
    auto child = spawn(confined(inner, jail, -1));
    if (!child) {
      std::fprintf(stderr, "%s\n", child.error().message().c_str());
      return 1;
    }
    ::close(3);
    const auto exit = child->wait();
    return exit && exit->signal == 0 ? exit->code : 1;
  };
  auto launcher = spawn(outer);
  EXPECT_TRUE(launcher);
  return launcher ? std::move(*launcher) : Child();
}

class FuseTest : public VmTest {
 protected:
  void SetUp() override {
    VmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    vm_ = std::make_unique<TestVm>("fuse");
    ASSERT_TRUE(vm_->create());
    outside_ = vm_->root() + "/outside";
    fs::create_directories(outside_);
    write_file(outside_ + "/canary", "intact");
    ::chmod(outside_.c_str(), 0777);
    ::chmod((outside_ + "/canary").c_str(), 0666);

    const Ran planned = vm_->agent({"start", vm_->name(), "--dry-run", "--json"});
    const json plan = json::parse(planned.out, nullptr, false);
    ASSERT_TRUE(plan.is_object()) << planned.describe();
    const json* child = nullptr;
    for (const auto& each : plan["children"])
      if (each["name"] == "virtiofsd") child = &each;
    ASSERT_NE(child, nullptr);
    const auto directory = open_directory(vm_->root());
    const SocketAddress address = unix_address(directory->get(), "share.sock");
    const Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(listener.get(), address.raw(), address.size), 0);
    ASSERT_EQ(::listen(listener.get(), 1), 0);
    Fd connection(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(connection.get(), address.raw(), address.size), 0);
    virtiofsd_ = start_virtiofsd(*child, listener.get());
    client_ = std::make_unique<FuseClient>(std::move(connection));
    ASSERT_TRUE(client_->open());
  }
  void TearDown() override {
    // It ends by itself when its guest has gone.
    client_.reset();
    if (virtiofsd_) {
      EXPECT_TRUE(virtiofsd_.wait(Deadline::in(std::chrono::seconds(30))));
    }
    vm_.reset();
  }

  FuseReply named(std::uint32_t opcode, std::uint64_t node, const std::string& name,
                  const std::string& before = "") {
    return client_->request(opcode, node, before + name + '\0');
  }
  static fuse_entry_out entry_of(const FuseReply& reply) {
    fuse_entry_out entry{};
    if (reply.payload.size() >= sizeof entry)
      std::memcpy(&entry, reply.payload.data(), sizeof entry);
    return entry;
  }
  static ino_t inode_of(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return info.st_ino;
  }
  void expect_nothing_happened_outside() {
    EXPECT_EQ(read_text(outside_ + "/canary"), "intact");
    EXPECT_EQ(std::distance(fs::directory_iterator(outside_), {}), 1);
    for (const auto& place : {vm_->directory(), vm_->state(), vm_->root()})
      EXPECT_FALSE(fs::exists(place + "/by-hand")) << place;
    EXPECT_FALSE(fs::exists("/by-hand"));
  }
  // The control: requests by hand do what they say, where they may.
  void expect_it_serves_the_workspace() {
    const FuseReply found = named(FUSE_LOOKUP, FUSE_ROOT_ID, "README.md");
    EXPECT_EQ(found.error, 0);
    EXPECT_EQ(entry_of(found).attr.ino, inode_of(vm_->workspace() + "/README.md"));
    fuse_mkdir_in mode{};
    mode.mode = 0755;
    EXPECT_EQ(named(FUSE_MKDIR, FUSE_ROOT_ID, "by-hand", bytes_of(mode)).error, 0);
    EXPECT_TRUE(fs::is_directory(vm_->workspace() + "/by-hand"));
  }

  std::unique_ptr<TestVm> vm_;
  std::string outside_;
  Child virtiofsd_;
  std::unique_ptr<FuseClient> client_;
};

// From the workspace, three folders up is where the canary's folder is.
constexpr std::array kNames{"../by-hand", "../../../outside/canary",
                            "/by-hand",   "../../../outside",
                            "a/../../..", "a/by-hand",
                            "./by-hand",  "../../../../../../../../../../etc/passwd"};

TEST_F(FuseTest, S8_NamesThatArePathsAreRefused) {
  const auto readme = entry_of(named(FUSE_LOOKUP, FUSE_ROOT_ID, "README.md")).nodeid;
  ASSERT_NE(readme, 0U);
  for (const std::string name : kNames) {
    EXPECT_TRUE(named(FUSE_LOOKUP, FUSE_ROOT_ID, name).refused()) << name;
    EXPECT_TRUE(named(FUSE_UNLINK, FUSE_ROOT_ID, name).refused()) << name;
    EXPECT_TRUE(named(FUSE_RMDIR, FUSE_ROOT_ID, name).refused()) << name;
    EXPECT_TRUE(named(FUSE_MKDIR, FUSE_ROOT_ID, name, bytes_of(fuse_mkdir_in{0777, 0})).refused())
        << name;
    EXPECT_TRUE(
        named(FUSE_MKNOD, FUSE_ROOT_ID, name, bytes_of(fuse_mknod_in{S_IFREG | 0666, 0, 0, 0}))
            .refused())
        << name;
    fuse_create_in create{};
    create.flags = O_RDWR | O_CREAT | O_TRUNC;
    create.mode = 0666;
    EXPECT_TRUE(named(FUSE_CREATE, FUSE_ROOT_ID, name, bytes_of(create)).refused()) << name;
    EXPECT_TRUE(named(FUSE_SYMLINK, FUSE_ROOT_ID, name + '\0' + "target").refused()) << name;
    EXPECT_TRUE(named(FUSE_LINK, FUSE_ROOT_ID, name, bytes_of(fuse_link_in{readme})).refused())
        << name;
    const std::string to = bytes_of(fuse_rename_in{FUSE_ROOT_ID});
    EXPECT_TRUE(
        named(FUSE_RENAME, FUSE_ROOT_ID, std::string("README.md") + '\0' + name, to).refused())
        << name;
    EXPECT_TRUE(named(FUSE_RENAME, FUSE_ROOT_ID, name + '\0' + "stolen", to).refused()) << name;
  }
  expect_nothing_happened_outside();
  expect_it_serves_the_workspace();
}

TEST_F(FuseTest, S8_TheParentOfTheWorkspaceIsTheWorkspace) {
  const FuseReply parent = named(FUSE_LOOKUP, FUSE_ROOT_ID, "..");
  if (parent.error == 0) {
    EXPECT_EQ(entry_of(parent).attr.ino, inode_of(vm_->workspace()));
  }
  for (const auto* name : {"..", ".", ""}) {
    EXPECT_TRUE(named(FUSE_MKDIR, FUSE_ROOT_ID, name, bytes_of(fuse_mkdir_in{0777, 0})).refused());
    EXPECT_TRUE(named(FUSE_RMDIR, FUSE_ROOT_ID, name).refused());
  }
  expect_nothing_happened_outside();
  expect_it_serves_the_workspace();
}

TEST_F(FuseTest, S8_NodesThatNobodyHandedOutAreRefused) {
  for (const std::uint64_t node :
       {std::uint64_t{0}, std::uint64_t{1} << 20U, std::uint64_t{1} << 63U, ~std::uint64_t{0}}) {
    EXPECT_TRUE(client_->request(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{})).refused())
        << node;
    fuse_open_in open{};
    open.flags = O_RDWR;
    EXPECT_TRUE(client_->request(FUSE_OPEN, node, bytes_of(open)).refused()) << node;
    EXPECT_TRUE(named(FUSE_LOOKUP, node, "README.md").refused()) << node;
  }
  expect_it_serves_the_workspace();
}

TEST_F(FuseTest, S8_ALinkIsNotFollowedOnTheHost) {
  const FuseReply made =
      named(FUSE_SYMLINK, FUSE_ROOT_ID, std::string("way-out") + '\0' + outside_ + "/canary");
  ASSERT_EQ(made.error, 0);
  const auto link = entry_of(made).nodeid;
  fuse_open_in open{};
  open.flags = O_RDWR | O_TRUNC;
  EXPECT_TRUE(client_->request(FUSE_OPEN, link, bytes_of(open)).refused());
  fuse_setattr_in cut{};
  cut.valid = FATTR_SIZE;
  EXPECT_TRUE(client_->request(FUSE_SETATTR, link, bytes_of(cut)).refused());
  EXPECT_TRUE(named(FUSE_LOOKUP, link, "canary").refused());
  // The control: on the host that link leads there.
  EXPECT_EQ(read_text(vm_->workspace() + "/way-out"), "intact");
  expect_nothing_happened_outside();
  expect_it_serves_the_workspace();
}

}  // namespace
}  // namespace agent_vm::test

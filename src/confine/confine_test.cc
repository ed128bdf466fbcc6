// Probes that run inside the confinement they test, each with the same probe outside as control.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "confine/jail.h"
#include "confine/user_namespace.h"
#include "os/files.h"
#include "os/run.h"

namespace agent_vm {
namespace {

using testing::HasSubstr;
using testing::Not;

// Runs `body` in a child of this test, because entering a user namespace cannot be undone, and
// returns what it printed.
std::string in_vm_namespace(const std::function<Status()>& body) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return "no pipe";
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(pipe[1], 1);
    const auto run = [&]() -> Status {
      TRY(enter_user_namespace(TRY(system_id_map())));
      return body();
    };
    const Status status = run();
    if (!status) dprintf(1, "error: %s\n", status.error().message().c_str());
    ::_exit(0);
  }
  ::close(pipe[1]);
  std::string output = read_all(pipe[0], 1U << 20U).value_or("cannot read");
  ::close(pipe[0]);
  ::waitpid(pid, nullptr, 0);
  return output;
}

Jail probe_jail() {
  Jail jail;
  jail.mounts = program_mounts();
  jail.mounts.push_back({JailMount::Kind::kBindReadOnly, "/proc", "/proc"});
  jail.ids = {{kQemuId, kQemuId, 1}};
  jail.uid = jail.gid = kQemuId;
  return jail;
}

std::string run_in(const Jail& jail, const std::string& script) {
  return in_vm_namespace([&]() -> Status {
    SpawnSpec spec;
    spec.argv = {"/bin/sh", "-c", script};
    spec.environment = {"PATH=/usr/bin:/usr/sbin"};
    spec.descriptors = {{1, 1}, {1, 2}};
    Child child = TRY(spawn(confined(spec, jail, -1)));
    static_cast<void>(TRY(child.wait()));
    return {};
  });
}

class ConfineTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto map = system_id_map(); !map) GTEST_SKIP() << map.error().message();
  }
};

TEST_F(ConfineTest, S3_NoCapabilitiesNoNewPrivileges) {
  const auto status = run_in(probe_jail(), "cat /proc/self/status");
  EXPECT_THAT(status, HasSubstr("CapEff:\t0000000000000000"));
  EXPECT_THAT(status, HasSubstr("CapPrm:\t0000000000000000"));
  EXPECT_THAT(status, HasSubstr("CapBnd:\t0000000000000000"));
  EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1"));
  EXPECT_THAT(status, HasSubstr("Groups:\t \n"));
}

TEST_F(ConfineTest, S4_SeesNoFileOfTheUser) {
  std::string folder = testing::TempDir() + "/confine_XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  std::ofstream(folder + "/canary") << "sing";
  const std::string probe = "cat " + folder + "/canary; ls / /proc/1/root /root /home";
  const auto inside = run_in(probe_jail(), probe);
  EXPECT_THAT(inside, Not(HasSubstr("sing")));
  EXPECT_THAT(inside, HasSubstr("No such file"));
  EXPECT_THAT(inside, Not(HasSubstr("etc\nhome")));
  EXPECT_THAT(run({.argv = {"sh", "-c", probe}})->out, HasSubstr("sing"));  // the control
  std::filesystem::remove_all(folder);
}

TEST_F(ConfineTest, S4_TheRootIsReadOnly) {
  const auto inside =
      run_in(probe_jail(), "touch /x /usr/x /dev/x && echo made; echo x >/dev/null && echo null");
  EXPECT_THAT(inside, Not(HasSubstr("made")));
  EXPECT_THAT(inside, HasSubstr("null"));
}

TEST_F(ConfineTest, S5_ReachesNoNetworkNotEvenLoopback) {
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);
  socklen_t size = sizeof address;
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  const std::string probe = fmt::format(
      "perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(PeerAddr=>\"127.0.0.1:{}\") ? "
      "\"in\" : \"out: $!\"'",
      ntohs(address.sin_port));
  EXPECT_THAT(run_in(probe_jail(), probe), HasSubstr("out: Network is unreachable"));
  EXPECT_EQ(run({.argv = {"sh", "-c", probe}})->out, "in");  // the control
}

TEST_F(ConfineTest, OnlyTheNamedMountsAreVisible) {
  auto jail = probe_jail();
  jail.mounts.push_back({JailMount::Kind::kBindReadOnly, "/etc/hostname", "/kernel"});
  EXPECT_EQ(run_in(jail, "ls /; cat /kernel"), "bin\ndev\netc\nkernel\nlib\nlib64\nproc\nusr\n" +
                                                   read_file("/etc/hostname", 1000).value());
}

TEST_F(ConfineTest, M16_TheSharesJailKnowsAllOfTheGuestsIds) {
  auto jail = probe_jail();
  jail.ids.clear();
  const IdMap map = system_id_map().value();
  for (const auto& range : map.uids) {
    if (range.inside < kFirstHelperId) {
      jail.ids.push_back(
          {range.inside, range.inside, std::min(range.count, kFirstHelperId - range.inside)});
    }
  }
  jail.uid = jail.gid = 0;
  EXPECT_THAT(run_in(jail, "id -u; tail -n 1 /proc/self/uid_map"), testing::StartsWith("0\n"));
}

TEST_F(ConfineTest, AMissingSourceStopsTheChild) {
  auto jail = probe_jail();
  jail.mounts.push_back({JailMount::Kind::kBindReadOnly, "/no/such/kernel", "/kernel"});
  EXPECT_THAT(run_in(jail, "echo ran"), testing::StartsWith("error: cannot open /no/such/kernel"));
}

TEST_F(ConfineTest, M16_InTheNamespaceDevIsTheUserAndRootIsNobody) {
  const IdMap map = system_id_map().value();
  SpawnSpec spec;
  spec.argv = {"sh", "-c", "id -u; cat /proc/self/uid_map"};
  spec.environment = {"PATH=/usr/bin:/bin"};
  const auto output = run({.argv = {"true"}});
  ASSERT_TRUE(output);
  EXPECT_EQ(map.outside_uid(kGuestDev), ::getuid() == 0 ? map.outside_uid(0) + 1000 : ::getuid());
  EXPECT_NE(map.outside_uid(kGuestRoot), 0U);
  EXPECT_NE(map.outside_uid(kGuestRoot), map.outside_uid(kGuestDev));
}

}  // namespace
}  // namespace agent_vm

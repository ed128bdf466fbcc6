// The way into the guest for tests: the system's ssh with the VM's own key and known_hosts, one
// connection for all commands, because the key exchange is what costs time.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/text.h"
#include "control/ssh.h"
#include "support/vm.h"

namespace agent_vm::test {
using std::chrono::milliseconds;
using std::chrono::seconds;

std::vector<std::string> TestVm::ssh_argv(const std::vector<std::string>& more) const {
  const SshTarget target{"127.0.0.1", ssh_port_, directory() + "/ssh/id_ed25519",
                         directory() + "/ssh/known_hosts", name()};
  return agent_vm::ssh_argv(target, more);
}

testing::AssertionResult TestVm::open_ssh() {
  if (ssh_ && !ssh_.wait(Deadline::in(milliseconds(0)))) return testing::AssertionSuccess();
  ssh_ = Child();
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return testing::AssertionFailure() << "no socket pair";
  const Fd ours(ends[0]);
  Fd theirs(ends[1]);
  SpawnSpec spec;
  // The local command runs once the session is there: that is the event to wait for.
  spec.argv = ssh_argv({"-M", "-S", root_ + "/" + options_.branch + ".ssh", "-N", "-o",
                        "PermitLocalCommand=yes", "-o", "LocalCommand=echo ready"});
  // Options are read first come, first served: ours must precede the product's.
  const auto ssh = std::find(spec.argv.begin(), spec.argv.end(), "PermitLocalCommand=no");
  if (ssh != spec.argv.end()) spec.argv.erase(ssh - 1, ssh + 1);
  spec.environment = host_environment();
  spec.descriptors = {{theirs.get(), 1}, {theirs.get(), 2}};
  spec.working_directory = "/";
  auto child = spawn(spec);
  if (!child) return testing::AssertionFailure() << child.error().message();
  theirs.reset();
  ssh_ = std::move(*child);
  std::string said;
  const auto deadline = Deadline::in(seconds(60));
  while (said.find("ready\n") == std::string::npos) {
    pollfd readable{ours.get(), POLLIN, 0};
    std::array<char, 1024> buffer{};
    const bool more = ::poll(&readable, 1, deadline.poll_ms()) > 0;
    const ssize_t got = more ? ::read(ours.get(), buffer.data(), buffer.size()) : 0;
    if (got <= 0) {
      close_ssh();
      return testing::AssertionFailure() << "ssh into the guest failed: " << said;
    }
    said.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return testing::AssertionSuccess();
}

void TestVm::close_ssh() {
  if (!ssh_) return;
  static_cast<void>(ssh_.signal(SIGTERM));
  static_cast<void>(ssh_.wait());
  ssh_ = Child();
  ::unlink((root_ + "/" + options_.branch + ".ssh").c_str());
}

Ran TestVm::over_ssh(const std::string& command, const std::string& script, milliseconds patience) {
  if (const auto open = open_ssh(); !open) return Ran{.code = 255, .error = open.message()};
  auto argv = ssh_argv({"-S", root_ + "/" + options_.branch + ".ssh", "-o", "ControlMaster=no"});
  argv.push_back(command);
  return run_program(argv, {.input = script, .patience = patience});
}

Ran TestVm::guest(const std::string& script, milliseconds patience) {
  return over_ssh("sh -s", script, patience);
}

Ran TestVm::guest_root(const std::string& script, milliseconds patience) {
  return over_ssh("/usr/lib/agent-vm/become-root sh -s", script, patience);
}

std::string TestVm::guest_says(const std::string& script) {
  const Ran ran = guest(script);
  EXPECT_TRUE(ran.ok()) << script << "\n" << ran.describe();
  return std::string(trim(ran.out));
}

bool TestVm::guest_sees(const std::string& condition, seconds patience) {
  return guest(fmt::format("timeout {} sh -c 'until {}; do sleep 0.1; done' > /dev/null",
                           patience.count(), condition))
      .ok();
}

std::string TestVm::root_says(const std::string& script) {
  const Ran ran = guest_root(script);
  EXPECT_TRUE(ran.ok()) << script << "\n" << ran.describe();
  return std::string(trim(ran.out));
}

}  // namespace agent_vm::test

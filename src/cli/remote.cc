#include "cli/remote.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "base/log.h"
#include "base/text.h"
#include "cli/escaping_pipe.h"
#include "os/random.h"
#include "os/run.h"
#include "os/spawn.h"

namespace agent_vm {
namespace {

using namespace std::chrono_literals;

constexpr int kSshFailed = 255;
constexpr std::array kForwarded{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

// ssh has no way to send a signal on, so a second session does: to the process groups of whoever
// has the mark in its command line, which this one's pattern does not match.
void send_signal(const SshTarget& target, const std::string& mark, int number) {
  Command command;
  command.argv = ssh_argv(target, use_kept_connection(target, "-T"));
  command.argv.push_back(
      fmt::format("for p in $(pgrep -f '[{}]{}'); do "
                  "kill -s {} -- -$p 2>/dev/null && sent=y; done; test \"$sent\"",
                  mark[0], mark.substr(1), signal_name(number).substr(3)));
  command.deadline = Deadline::in(15s);
  const auto sent = run(command);
  if (!sent || !sent->ok()) log::warn("cannot send {} to the guest", signal_name(number));
}

// Our signals as a descriptor while the program runs.
class SignalForwarder {
 public:
  SignalForwarder() {
    sigset_t set;
    sigemptyset(&set);
    for (const int number : kForwarded) sigaddset(&set, number);
    ::sigprocmask(SIG_BLOCK, &set, &old_);
    fd_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~SignalForwarder() { ::sigprocmask(SIG_SETMASK, &old_, nullptr); }
  SignalForwarder(const SignalForwarder&) = delete;
  SignalForwarder& operator=(const SignalForwarder&) = delete;

  int fd() const { return fd_.get(); }
  int take() const {
    signalfd_siginfo info{};
    return ::read(fd_.get(), &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo)
                                                                : 0;
  }

 private:
  Fd fd_;
  sigset_t old_;
};

void explain_failure(Output& out, const SshTarget& target) {
  const SshCheck check = check_ssh(target, Deadline::in(20s));
  if (check.authenticated) return;  // the program's own 255
  out.note("SSH to VM '{}' failed at the step '{}': {}", target.alias, check.failed_step,
           escape_line(check.detail));
}

struct Streams {
  EscapingPipe out;
  EscapingPipe error;
};

// Until the program has ended and all it printed has been passed on.
Result<int> attend(Child& child, Streams& streams, const SshTarget& target, const std::string& mark,
                   const RemoteRun& command, const SignalForwarder& signals) {
  constexpr int kPatience = 3;
  int interrupts = 0;
  std::optional<Child::Exit> exit;
  while (!exit || streams.out.open() || streams.error.open()) {
    std::array<pollfd, 4> waits{{{exit ? -1 : child.pidfd(), POLLIN, 0},
                                 {signals.fd(), POLLIN, 0},
                                 {streams.out.fd(), POLLIN, 0},
                                 {streams.error.fd(), POLLIN, 0}}};
    const int ready = ::poll(waits.data(), waits.size(), command.deadline.poll_ms());
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for ssh");
    if (ready == 0 && command.deadline.expired()) {
      send_signal(target, mark, SIGTERM);
      static_cast<void>(child.signal(SIGKILL));
      static_cast<void>(child.wait());
      return fail(ErrorKind::kTimeout, "{} did not end in time", escape_line(command.argv[0]));
    }
    if (ready <= 0) continue;
    if (waits[1].revents != 0) {
      const int number = signals.take();
      if (number == SIGINT && ++interrupts == kPatience) {
        // The guest does not listen, or the program does not.
        static_cast<void>(child.signal(SIGKILL));
      } else if (number != 0) {
        send_signal(target, mark, number);
      }
    }
    if (waits[2].revents != 0) TRY(streams.out.pump());
    if (waits[3].revents != 0) TRY(streams.error.pump());
    if (waits[0].revents != 0) exit = TRY(child.wait());
  }
  if (interrupts >= kPatience) return fail(ErrorKind::kInterrupted, "interrupted");
  return exit->signal != 0 ? 128 + exit->signal : exit->code;
}

}  // namespace

Result<SshTarget> running_target(const VmDirectory& vm) {
  const VmConfig config = TRY(vm.read_config());
  const std::optional<RunRecord> run = TRY(vm.read_run());
  if (!run || run->is_stale()) {
    return tl::unexpected(
        Error(ErrorKind::kNotRunning, fmt::format("VM '{}' is not running", vm.name()))
            .with_hint(fmt::format("agent-vm start {}", vm.name())));
  }
  VmConfig now = config;  // the ports as they were bound, should an update have changed them since
  now.bind_address = run->bind_address;
  now.ssh_port = run->ssh_port;
  return ssh_target(vm, now);
}

std::string remote_command_line(const std::vector<std::string>& argv, const std::string& mark) {
  // sshd makes the shell the leader of a session and a process group of its own. Its traps keep it
  // alive to report what became of the program, and are not inherited by it.
  return fmt::format(
      ": {}; trap : INT TERM HUP QUIT USR1 USR2; cd /workspace || exit 126; {}; exit $?", mark,
      shell_join(argv));
}

Status become_ssh(const SshTarget& target, const std::string& remote_command) {
  std::vector<std::string> argv = ssh_argv(target, use_kept_connection(target, "-t"));
  argv.push_back(remote_command);
  log::debug("exec: {}", shell_join(argv));
  std::vector<std::string> environment = host_environment();
  std::vector<char*> argument_pointers;
  std::vector<char*> environment_pointers;
  for (auto& argument : argv) argument_pointers.push_back(argument.data());
  for (auto& variable : environment) environment_pointers.push_back(variable.data());
  argument_pointers.push_back(nullptr);
  environment_pointers.push_back(nullptr);
  static_cast<void>(std::signal(SIGPIPE, SIG_DFL));
  ::execvpe("ssh", argument_pointers.data(), environment_pointers.data());
  const int error = errno;
  if (error == ENOENT) {
    return tl::unexpected(Error(ErrorKind::kMissing, "ssh is not installed")
                              .with_hint("sudo apt-get install openssh-client"));
  }
  return fail_errno(error, "cannot run ssh");
}

Result<int> run_remotely(Output& out, const SshTarget& target, const RemoteRun& command) {
  const std::string mark = "agent-vm-" + TRY(random_hex(12));
  Streams streams{TRY(EscapingPipe::make(1, command.always_escape)),
                  TRY(EscapingPipe::make(2, command.always_escape))};
  SpawnSpec spec;
  spec.argv = ssh_argv(target, use_kept_connection(target, "-T"));
  spec.argv.push_back(remote_command_line(command.argv, mark));
  spec.environment = host_environment();
  spec.descriptors = {{0, 0}, {streams.out.writer(), 1}, {streams.error.writer(), 2}};
  spec.in_child = []() -> Status {
    // Ctrl-C reaches the whole foreground group; ssh must live on to bring the program's answer.
    for (const int number : kForwarded) static_cast<void>(std::signal(number, SIG_IGN));
    return {};
  };
  const SignalForwarder signals;
  auto child = spawn(spec);
  if (!child) {
    Error error = std::move(child).error();
    if (error.kind() == ErrorKind::kMissing) {
      error = std::move(error).with_hint("sudo apt-get install openssh-client");
    }
    return tl::unexpected(std::move(error));
  }
  streams.out.close_writer();
  streams.error.close_writer();
  const int code = TRY(attend(*child, streams, target, mark, command, signals));
  if (code == kSshFailed) explain_failure(out, target);
  return code;
}

}  // namespace agent_vm

#include "os/spawn.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>

#include "base/log.h"
#include "base/text.h"
#include "os/files.h"

extern char** environ;

namespace agent_vm {
namespace {

std::vector<char*> to_pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const auto& text : strings) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

Status move_descriptors(const SpawnSpec& spec, int keep) {
  // First out of the way of every target number, then into place.
  int floor = 3;
  for (const auto& [ours, theirs] : spec.descriptors) floor = std::max(floor, theirs + 1);
  struct Move {
    int from;
    int to;
  };
  std::vector<Move> moves;
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int standard : {0, 1, 2}) {
    if (std::ranges::none_of(spec.descriptors,
                             [&](const auto& d) { return d.theirs == standard; })) {
      const int copy = ::fcntl(null, F_DUPFD_CLOEXEC, floor);
      // A jail without /dev/null still gets closed standard streams, never ours.
      if (copy >= 0) moves.push_back({copy, standard});
    }
  }
  for (const auto& [ours, theirs] : spec.descriptors) {
    const int copy = ::fcntl(ours, F_DUPFD_CLOEXEC, floor);
    if (copy < 0) return fail_errno(errno, "cannot pass descriptor {} to the child", ours);
    moves.push_back({copy, theirs});
  }
  const int safe_keep = ::fcntl(keep, F_DUPFD_CLOEXEC, floor);
  if (safe_keep < 0 || ::dup3(safe_keep, keep, O_CLOEXEC) < 0) {
    return fail_errno(errno, "cannot keep the error channel");
  }
  if (::syscall(SYS_close_range, 3U, ~0U, 1U << 2U /* CLOSE_RANGE_CLOEXEC */) != 0) {
    return fail_errno(errno, "cannot mark descriptors close-on-exec");
  }
  for (const auto& [from, to] : moves) {
    if (::dup2(from, to) < 0) return fail_errno(errno, "cannot move a descriptor to {}", to);
  }
  return {};
}

void close_unlisted(const SpawnSpec& spec) {
  std::vector<unsigned> keep{0, 1, 2};
  for (const auto& descriptor : spec.descriptors) {
    keep.push_back(static_cast<unsigned>(descriptor.theirs));
  }
  std::ranges::sort(keep);
  unsigned next = 0;
  for (const unsigned number : keep) {
    if (number > next) ::syscall(SYS_close_range, next, number - 1, 0U);
    next = std::max(next, number + 1);
  }
  ::syscall(SYS_close_range, next, ~0U, 0U);
}

void reset_signals() {
  for (int number = 1; number < NSIG; ++number) {
    if (number != SIGKILL && number != SIGSTOP) static_cast<void>(::signal(number, SIG_DFL));
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe)
  for (const auto& folder : split(path != nullptr ? path : "/usr/bin:/bin", ':')) {
    std::string candidate = folder + "/" + name;
    if (!folder.empty() && ::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  // Debian gives ordinary users a PATH without these; mke2fs is there.
  for (const auto* folder : {"/usr/sbin/", "/sbin/"}) {
    std::string candidate = folder + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return name;
}

void report_failure(int channel, const Error& error) {
  // What is between zeros has none itself.
  std::string report(to_string(error.kind()));
  for (const auto& part : {error.message(), error.hint()}) {
    report += '\0';
    report += part;
  }
  static_cast<void>(::send(channel, report.data(), report.size(), MSG_NOSIGNAL));
}

constexpr char kPrepared = 'p';
constexpr char kGo = 'g';

// The child's side. Never returns: either exec succeeds or the error goes up the channel.
[[noreturn]] void child_main(const SpawnSpec& spec, const std::string& program, int channel) {
  const auto run = [&]() -> Status {
    reset_signals();
    if (spec.new_session) static_cast<void>(::setsid());
    if (spec.prepare_in_child) TRY(spec.prepare_in_child());
    if (spec.in_parent) {
      char go = 0;
      static_cast<void>(::send(channel, &kPrepared, 1, MSG_NOSIGNAL));
      // The parent may die before it says go; then there is nothing left to do, and nobody to tell.
      if (::recv(channel, &go, 1, 0) != 1) ::_exit(127);
    }
    if (spec.in_child) TRY(spec.in_child());
    if (!spec.working_directory.empty() && ::chdir(spec.working_directory.c_str()) != 0) {
      return fail_errno(errno, "cannot enter {}", spec.working_directory);
    }
    TRY(move_descriptors(spec, channel));
    if (spec.main_instead_of_exec) return {};
    ::execve(program.c_str(), to_pointers(spec.argv).data(), to_pointers(spec.environment).data());
    const int error = errno;
    if (error == ENOENT) return fail(ErrorKind::kMissing, "{} is not installed", spec.argv[0]);
    return fail_errno(error, "cannot execute {}", spec.argv[0]);
  };
  const Status status = run();
  if (status && spec.main_instead_of_exec) {
    // What exec would have closed.
    ::close(channel);
    close_unlisted(spec);
    ::_exit(spec.main_instead_of_exec());
  }
  report_failure(channel, status.error());
  ::_exit(127);
}

// Waits for the next message of the child: its text, or empty at EOF.
std::string receive(int channel) {
  std::array<char, 4096> text{};
  ssize_t got = 0;
  do {
    got = ::recv(channel, text.data(), text.size(), 0);
  } while (got < 0 && errno == EINTR);
  return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0))};
}

Error reported_error(std::string_view report) {
  auto parts = split(report, '\0');
  parts.resize(3);
  return Error(error_kind_from_string(parts[0]), parts[1]).with_hint(parts[2]);
}

}  // namespace

Status Child::signal(int number) const {
  if (::syscall(SYS_pidfd_send_signal, pidfd_.get(), number, nullptr, 0) != 0 && errno != ESRCH) {
    return fail_errno(errno, "cannot send {} to process {}", signal_name(number), pid_);
  }
  return {};
}

std::string Child::Exit::describe() const {
  return signal != 0 ? fmt::format("was killed by {}", signal_name(signal))
                     : fmt::format("exited with status {}", code);
}

Result<Child::Exit> Child::wait(const Deadline& deadline) {
  pollfd ready{pidfd_.get(), POLLIN, 0};
  int polled = 0;
  do {
    polled = ::poll(&ready, 1, deadline.poll_ms());
  } while (polled < 0 && errno == EINTR);
  if (polled == 0) return fail(ErrorKind::kTimeout, "process {} is still running", pid_);
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED) != 0) {
    return fail_errno(errno, "cannot wait for process {}", pid_);
  }
  pidfd_.reset();
  return info.si_code == CLD_EXITED ? Exit{info.si_status, 0} : Exit{-1, info.si_status};
}

Result<Child> spawn(const SpawnSpec& spec) {
  if (spec.argv.empty()) return fail(ErrorKind::kInternal, "spawn without a program");
  log::debug("spawn: {}", shell_join(spec.argv));
  const std::string program = find_program(spec.argv[0]);

  // "prepared" or an error comes up this channel, "go" goes down; EOF means that exec succeeded.
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    return fail_errno(errno, "cannot make a socket pair");
  }
  Fd ours(pair[0]);
  Fd theirs(pair[1]);

  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_PIDFD;
  args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  const long pid = ::syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0) return fail_errno(errno, "cannot start {}", spec.argv[0]);
  if (pid == 0) {
    ours.reset();
    child_main(spec, program, theirs.get());
  }
  Child child(static_cast<pid_t>(pid), Fd(pidfd));
  theirs.reset();

  const auto abandon = [&](Error error) -> Result<Child> {
    static_cast<void>(child.signal(SIGKILL));
    static_cast<void>(child.wait());
    return tl::unexpected(std::move(error));
  };
  if (spec.in_parent) {
    const std::string message = receive(ours.get());
    if (message != std::string(1, kPrepared)) return abandon(reported_error(message));
    if (auto done = spec.in_parent(child.pid()); !done) return abandon(std::move(done).error());
    static_cast<void>(::send(ours.get(), &kGo, 1, MSG_NOSIGNAL));
  }
  if (const std::string report = receive(ours.get()); !report.empty()) {
    return abandon(reported_error(report));
  }
  return child;
}

std::vector<std::string> host_environment() {
  constexpr std::array<std::string_view, 17> kNames{"PATH",
                                                    "HOME",
                                                    "USER",
                                                    "LOGNAME",
                                                    "LANG",
                                                    "LANGUAGE",
                                                    "TERM",
                                                    "TMPDIR",
                                                    "XDG_DATA_HOME",
                                                    "XDG_CONFIG_HOME",
                                                    "XDG_CACHE_HOME",
                                                    "XDG_RUNTIME_DIR",
                                                    "TZ",
                                                    "SSL_CERT_FILE",
                                                    "SSL_CERT_DIR",
                                                    "CURL_CA_BUNDLE",
                                                    "GIT_SSL_CAINFO"};
  std::vector<std::string> kept;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view variable = *entry;
    const auto name = variable.substr(0, variable.find('='));
    if (std::ranges::find(kNames, name) != kNames.end() || name.starts_with("LC_")) {
      kept.emplace_back(variable);
    }
  }
  return kept;
}

std::string signal_name(int number) {
  const char* name = ::sigabbrev_np(number);
  return name != nullptr ? fmt::format("SIG{}", name) : fmt::format("signal {}", number);
}

}  // namespace agent_vm

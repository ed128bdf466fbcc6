#include "process/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/text.h"

namespace agent_vm::process {
namespace {

// posix_spawn's two descriptions, freed on every path.
class Actions {
 public:
  Actions() {
    posix_spawn_file_actions_init(&files_);
    posix_spawnattr_init(&attributes_);
  }
  ~Actions() {
    posix_spawn_file_actions_destroy(&files_);
    posix_spawnattr_destroy(&attributes_);
  }
  Actions(const Actions&) = delete;
  Actions& operator=(const Actions&) = delete;

  void redirect(int target, int source, int null_flags) {
    if (source >= 0) {
      posix_spawn_file_actions_adddup2(&files_, source, target);
    } else {
      posix_spawn_file_actions_addopen(&files_, target, "/dev/null", null_flags, 0);
    }
  }

  // A session of its own gives a group of its own, and no controlling terminal. Signals that we
  // ignore or block must not stay so in the child: a shell would pass that on.
  void new_session_with_default_signals() {
    sigset_t all;
    sigset_t none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setflags(
        &attributes_,
        static_cast<short>(POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK));
  }

  posix_spawn_file_actions_t files_;
  posix_spawnattr_t attributes_;
};

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (std::string& text : strings) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

std::string to_string(ExitStatus status) {
  if (!status.signaled) return fmt::format("exited with status {}", status.value);
  const char* name = sigdescr_np(status.value);
  return fmt::format("was killed by signal {} ({})", status.value, name != nullptr ? name : "?");
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), pidfd_(std::move(other.pidfd_)) {}

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    if (running()) {
      kill_group(SIGKILL);
      reap();
    }
    pid_ = std::exchange(other.pid_, 0);
    pidfd_ = std::move(other.pidfd_);
  }
  return *this;
}

Process::~Process() {
  if (!running()) return;
  kill_group(SIGKILL);
  reap();
}

void Process::kill_group(int signal) const {
  if (running()) ::kill(-pid_, signal);
}

ExitStatus Process::reap() {
  if (!running()) return {};
  siginfo_t info{};
  const auto target = static_cast<id_t>(pid_);
  while (::waitid(P_PID, target, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  ::kill(-pid_, SIGKILL);
  while (::waitid(P_PID, target, &info, WEXITED) != 0 && errno == EINTR) {
  }
  pid_ = 0;
  pidfd_.reset();
  return ExitStatus{info.si_code != CLD_EXITED, info.si_status};
}

Result<std::string> find_program(const std::string& name, const Environment& environment) {
  if (name.empty()) return fail(ErrorKind::kInvalidInput, "the command is empty");
  if (name.find('/') != std::string::npos) return name;
  const auto path = environment.find("PATH");
  const std::string directories = path == environment.end() ? "/usr/bin:/bin" : path->second;
  for (const std::string& directory : split(directories, ':')) {
    if (directory.empty()) continue;  // the working directory: not where commands come from
    std::string candidate = directory + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return fail(ErrorKind::kNotFound, "command not found: {} (looked in PATH={})", escape_line(name),
              escape_line(directories));
}

Result<Process> spawn(const SpawnSpec& spec) {
  if (spec.argv.empty()) return fail(ErrorKind::kInvalidInput, "the command is empty");
  const std::string program = TRY(find_program(spec.argv[0], spec.environment));

  Actions actions;
  actions.redirect(STDIN_FILENO, spec.stdin_fd, O_RDONLY);
  actions.redirect(STDOUT_FILENO, spec.stdout_fd, O_WRONLY);
  actions.redirect(STDERR_FILENO, spec.stderr_fd, O_WRONLY);
  if (spec.cwd_fd >= 0) {
    posix_spawn_file_actions_addfchdir_np(&actions.files_, spec.cwd_fd);
  } else if (!spec.cwd.empty()) {
    posix_spawn_file_actions_addchdir_np(&actions.files_, spec.cwd.c_str());
  }
  // Ours are CLOEXEC, but we may have inherited some that are not.
  posix_spawn_file_actions_addclosefrom_np(&actions.files_, STDERR_FILENO + 1);
  actions.new_session_with_default_signals();

  std::vector<std::string> argv = spec.argv;
  std::vector<std::string> environment;
  for (const auto& [key, value] : spec.environment) environment.push_back(key + "=" + value);

  Process process;
  const int error =
      ::posix_spawn(&process.pid_, program.c_str(), &actions.files_, &actions.attributes_,
                    pointers(argv).data(), pointers(environment).data());
  if (error != 0) {
    process.pid_ = 0;
    return fail_errno(error, "cannot run {}{}", escape_line(program),
                      spec.cwd.empty() ? "" : " in " + escape_line(spec.cwd));
  }
  // By its number: the header of glibc 2.36 cannot be linked from C++.
  process.pidfd_ = Fd(static_cast<int>(::syscall(SYS_pidfd_open, process.pid_, 0)));
  if (!process.pidfd_) return fail_errno(errno, "cannot watch process {}", process.pid_);
  return process;
}

Result<Pipe> make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  return Pipe{Fd(fds[0]), Fd(fds[1])};
}

}  // namespace agent_vm::process

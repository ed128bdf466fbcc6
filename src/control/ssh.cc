#include "control/ssh.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>

#include "base/fd.h"
#include "base/text.h"
#include "os/run.h"
#include "os/socket_address.h"

namespace agent_vm {
namespace {

Status check_key_file(const SshTarget& target) {
  struct stat info {};
  if (::stat(target.private_key.c_str(), &info) != 0)
    return fail_errno(errno, "{}", target.private_key);
  if ((info.st_mode & 077U) != 0) {
    return fail("{} has mode {:o}, and ssh refuses a key that others can read; run: chmod 600 {}",
                target.private_key, info.st_mode & 0777U, shell_quote(target.private_key));
  }
  return {};
}

Result<Fd> connect_to(const SshTarget& target) {
  const SocketAddress socket = TRY(tcp_address(target.address, target.port));
  Fd fd(::socket(socket.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), socket.raw(), socket.size) != 0) {
    return fail_errno(errno, "nothing listens on {} port {}", target.address, target.port);
  }
  return fd;
}

// The relay accepts at once, so only the banner tells whether the guest's sshd is there.
Status check_banner(const Fd& socket, const Deadline& deadline) {
  pollfd ready{socket.get(), POLLIN, 0};
  if (::poll(&ready, 1, deadline.poll_ms()) <= 0)
    return fail("the guest accepts the connection and then says nothing");
  std::array<char, 64> banner{};
  const ssize_t got = ::recv(socket.get(), banner.data(), banner.size(), 0);
  if (got <= 0) return fail("the connection was closed at once: sshd does not listen in the guest");
  const std::string_view text(banner.data(), static_cast<std::size_t>(got));
  if (!text.starts_with("SSH-2.0-"))
    return fail("the guest answered '{}' instead of an SSH banner", escape_line(text));
  return {};
}

// Which step ssh's own words are about.
std::string step_of(std::string_view error) {
  if (error.find("Host key verification failed") != std::string_view::npos ||
      error.find("HOST IDENTIFICATION HAS CHANGED") != std::string_view::npos) {
    return "host key";
  }
  if (error.find("Permission denied") != std::string_view::npos) return "authentication";
  return "command";
}

// ssh expands %h and the like in these paths, and splits them at spaces.
std::string option_path(const std::string& path) {
  std::string escaped;
  for (const char c : path) escaped += c == '%' ? "%%" : std::string(1, c);
  return shell_quote(escaped);
}

}  // namespace

SshTarget ssh_target(const VmDirectory& vm, const VmConfig& config) {
  // A listener on all addresses is reached through loopback.
  std::string address = config.bind_address;
  if (address == "0.0.0.0") address = "127.0.0.1";
  if (address == "::") address = "::1";
  // ssh first binds the socket under a name that is 17 bytes longer.
  constexpr std::size_t kLongestSocket = sizeof(sockaddr_un::sun_path) - 1 - 17;
  std::string socket = vm.path() + "/ssh.sock";
  if (socket.size() > kLongestSocket) socket.clear();
  return {.address = address,
          .port = config.ssh_port,
          .private_key = config.ssh_key_path,
          .known_hosts = vm.path() + "/" + vm_files::kKnownHosts,
          .alias = vm.name(),
          .kept_connection = std::move(socket)};
}

std::vector<std::string> use_kept_connection(const SshTarget& target, const char* terminal) {
  if (target.kept_connection.empty()) return {terminal};
  return {terminal,
          "-o",
          "ControlMaster=auto",
          "-o",
          "ControlPersist=yes",
          "-o",
          "ControlPath=" + option_path(target.kept_connection)};
}

std::vector<std::string> ssh_argv(const SshTarget& target,
                                  const std::vector<std::string>& options) {
  std::vector<std::string> argv{"ssh", "-F", "/dev/null"};
  for (const auto& option : {
           std::string("BatchMode=yes"),
           std::string("IdentitiesOnly=yes"),
           std::string("IdentityAgent=none"),
           "IdentityFile=" + option_path(target.private_key),
           "UserKnownHostsFile=" + option_path(target.known_hosts),
           std::string("GlobalKnownHostsFile=/dev/null"),
           std::string("StrictHostKeyChecking=yes"),
           "HostKeyAlias=" + target.alias,
           std::string("UpdateHostKeys=no"),
           // Beyond the loopback there is only the VM, and its processor may be an emulated one.
           std::string("KexAlgorithms=curve25519-sha256"),
           std::string("ForwardAgent=no"),
           std::string("ForwardX11=no"),
           std::string("PermitLocalCommand=no"),
           std::string("LogLevel=ERROR"),
       }) {
    argv.insert(argv.end(), {"-o", option});
  }
  argv.insert(argv.end(), options.begin(), options.end());
  argv.insert(argv.end(), {"-p", std::to_string(target.port), "-l", "dev", target.address});
  return argv;
}

namespace {

// A login and what ssh printed.
struct Attempt {
  SshCheck check;
  Result<CommandOutput> output;
};

Attempt log_in(const SshTarget& target, const Deadline& deadline, bool keep) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::string> options;
  if (keep) {
    // Of an earlier run: nobody listens there any more.
    ::unlink(target.kept_connection.c_str());
    options = use_kept_connection(target, "-T");
  }
  std::vector<std::string> argv = ssh_argv(target, options);
  argv.emplace_back("true");
  Attempt attempt{{}, run({.argv = argv, .deadline = deadline})};
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  attempt.check.milliseconds = took.count();
  attempt.check.authenticated = attempt.output && attempt.output->ok();
  return attempt;
}

}  // namespace

SshCheck try_ssh(const SshTarget& target, const Deadline& deadline, bool keep) {
  return log_in(target, deadline, keep).check;
}

SshCheck check_ssh(const SshTarget& target, const Deadline& deadline, bool keep) {
  SshCheck check;
  const auto failed = [&](std::string step, std::string detail) {
    check.failed_step = std::move(step);
    check.detail = std::move(detail);
    return check;
  };
  if (const Status key = check_key_file(target); !key)
    return failed("key file", key.error().message());
  const Attempt attempt = log_in(target, deadline, keep);
  check = attempt.check;
  if (check.authenticated) return check;
  // Only now, when something is wrong, look at the steps one by one.
  const auto socket = connect_to(target);
  if (!socket) return failed("port", socket.error().message());
  const Deadline patience = Deadline::in(std::chrono::seconds(3));
  if (const Status banner = check_banner(*socket, patience); !banner)
    return failed("banner", banner.error().message());
  if (!attempt.output) return failed("command", attempt.output.error().message());
  return failed(step_of(attempt.output->error), escape_line(trim(attempt.output->error)));
}

}  // namespace agent_vm

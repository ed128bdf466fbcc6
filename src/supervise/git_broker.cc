#include "supervise/git_broker.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "net/descriptor_passing.h"
#include "supervise/machine.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr int kChannel = 3;
constexpr std::size_t kMostWords = 4096;

std::string variable(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return value != nullptr ? value : "";
}

// What ssh says at its end, for the audit log: "Host key verification failed."
struct Ending {
  int status = -1;
  std::string words;
};

// Waits for ssh, and reads what it says, of which the end counts.
Result<Ending> run_ssh(const GitRequest& request, const std::string& version, int connection) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  const Fd words(ends[0]);
  Fd theirs(ends[1]);
  SpawnSpec ssh;
  ssh.argv = git_ssh_command(request, variable("HOME"));
  ssh.environment = host_environment();
  if (const auto agent = variable("SSH_AUTH_SOCK"); !agent.empty())
    ssh.environment.push_back("SSH_AUTH_SOCK=" + agent);
  if (!version.empty()) ssh.environment.push_back("GIT_PROTOCOL=" + version);
  ssh.descriptors = {{connection, 0}, {connection, 1}, {theirs.get(), 2}};
  ssh.working_directory = "/";
  Child child = TRY(spawn(ssh));
  theirs.reset();
  std::string text;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = ::read(words.get(), buffer.data(), buffer.size())) != 0;) {
    if (got < 0) {
      if (errno == EINTR) continue;
      break;
    }
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > kMostWords) text.erase(0, text.size() - kMostWords);
  }
  const Child::Exit exit = TRY(child.wait());
  std::string last;
  for (const auto& line : split_lines(text)) {
    if (!trim(line).empty()) last = trim(line);
  }
  return Ending{exit.code, last};
}

// A process of its own for each connection.
void serve(const std::string& text, const Fd& connection) {
  static_cast<void>(::signal(SIGCHLD, SIG_DFL));
  const json message = json::parse(text, nullptr, false);
  json answer = {{"id", message.value("id", 0U)}, {"status", -1}, {"error", ""}};
  const GitRequest request{.push = message.value("push", false),
                           .user = message.value("user", ""),
                           .host = message.value("host", ""),
                           .port = message.value<std::uint16_t>("port", 22),
                           .path = message.value("path", "")};
  const auto ending = run_ssh(request, message.value("version", ""), connection.get());
  if (ending) {
    answer["status"] = ending->status;
    if (ending->status != 0) answer["error"] = ending->words;
  } else {
    answer["error"] = ending.error().message();
  }
  const std::string line = answer.dump(-1, ' ', false, json::error_handler_t::replace);
  static_cast<void>(::send(kChannel, line.data(), line.size(), MSG_NOSIGNAL));
}

int run_broker() {
  static_cast<void>(::prctl(PR_SET_NAME, "git-broker"));
  // Children are reaped by the kernel: nobody waits for them.
  static_cast<void>(::signal(SIGCHLD, SIG_IGN));
  while (true) {
    std::string text;
    const auto received = receive_descriptors(kChannel, 1, &text);
    if (!received) break;
    if (const pid_t pid = ::fork(); pid == 0) {
      serve(text, received->front());
      ::_exit(0);
    }
  }
  // Of the session that start_git_broker() made: every ssh, and this process.
  ::kill(0, SIGKILL);
  return 1;
}

}  // namespace

std::vector<std::string> git_ssh_command(const GitRequest& request, const std::string& home) {
  const std::string config = home + "/.ssh/config";
  std::vector<std::string> argv = {
      "ssh", "-T", "-x", "-a", "-F", ::access(config.c_str(), R_OK) == 0 ? config : "none"};
  for (const auto* option :
       {"BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "ForwardAgent=no",
        "ClearAllForwardings=yes", "PermitLocalCommand=no", "ControlMaster=no", "ControlPath=none",
        "ConnectTimeout=20", "ServerAliveInterval=30", "LogLevel=ERROR", "SendEnv=GIT_PROTOCOL"}) {
    argv.insert(argv.end(), {"-o", option});
  }
  argv.insert(argv.end(), {"-o", fmt::format("UserKnownHostsFile={}/.ssh/known_hosts", home), "-p",
                           std::to_string(request.port), "-l", request.user, "--", request.host,
                           fmt::format("git-{} '{}'", request.push ? "receive-pack" : "upload-pack",
                                       request.path)});
  return argv;
}

Result<GitBroker> start_git_broker() {
  SocketPair pair = TRY(make_socket_pair(SOCK_SEQPACKET));
  GitBroker broker;
  broker.channel = std::move(pair.ours);
  SpawnSpec spec;
  spec.argv = {"git-broker"};
  spec.descriptors = {{pair.theirs.get(), kChannel}};
  spec.working_directory = "/";
  spec.new_session = true;
  spec.main_instead_of_exec = [] { return run_broker(); };
  broker.process = TRY(spawn(spec));
  return broker;
}

}  // namespace agent_vm

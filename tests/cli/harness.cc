#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/text.h"
#include "os/files.h"

namespace agent_vm {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

void set_variable(std::vector<std::string>& environment, const std::string& variable) {
  const std::string name = variable.substr(0, variable.find('=') + 1);
  std::erase_if(environment, [&](const std::string& old) { return old.starts_with(name); });
  environment.push_back(variable);
}

CliTest::CliTest() {
  std::string path = testing::TempDir() + "/agent_vm_cli_XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) throw std::runtime_error("mkdtemp");
  root_ = fs::canonical(path).string();
  fs::create_directory(home());
  const char* search = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe)
  environment_ = {std::string("PATH=") + (search != nullptr ? search : "/usr/bin:/bin"),
                  "HOME=" + home(), "LC_ALL=C.UTF-8", "TERM=xterm"};
  make_repository(repo());
}

CliTest::~CliTest() {
  if (HasFailure()) {
    std::fprintf(stderr, "kept for a look: %s\n", root_.c_str());
    return;
  }
  std::error_code error;
  fs::remove_all(root_, error);
}

bool is_root() {
  return ::geteuid() == 0;
}

Command CliTest::command(std::vector<std::string> arguments) const {
  Command command;
  command.argv = {AGENT_VM_BINARY};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  command.environment = environment_;
  command.working_directory = repo();
  command.deadline = Deadline::in(120s);
  return command;
}

Outcome CliTest::plain(std::vector<std::string> arguments, const std::string& directory,
                       std::vector<std::string> environment) {
  Command command = this->command(std::move(arguments));
  command.working_directory = directory;
  for (const auto& variable : environment) set_variable(*command.environment, variable);
  const auto output = run(command);
  if (!output) {
    ADD_FAILURE() << output.error().message();
    return {};
  }
  return {output->exit.code, output->exit.signal, output->out, output->error};
}

Outcome CliTest::agent_vm(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"--state-dir", state()});
  return plain(std::move(arguments), repo());
}

Outcome CliTest::on_terminal(std::vector<std::string> arguments, const std::string& typed,
                             std::vector<std::string> environment) {
  arguments.insert(arguments.begin(), {AGENT_VM_BINARY, "--state-dir", state()});
  std::vector<std::string> variables = environment_;
  for (const auto& variable : environment) set_variable(variables, variable);
  int master = -1;
  const pid_t child = ::forkpty(&master, nullptr, nullptr, nullptr);
  if (child == 0) {
    std::vector<char*> argv;
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    std::vector<char*> envp;
    for (auto& variable : variables) envp.push_back(variable.data());
    envp.push_back(nullptr);
    if (::chdir(repo().c_str()) != 0) ::_exit(126);
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  const Fd terminal(master);
  EXPECT_TRUE(write_all(terminal.get(), typed));
  Outcome outcome;
  std::array<char, 4096> buffer{};
  while (true) {
    const ssize_t got = ::read(terminal.get(), buffer.data(), buffer.size());
    if (got <= 0) break;  // EIO when the other side has closed
    outcome.out.append(buffer.data(), static_cast<std::size_t>(got));
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return outcome;
}

std::string CliTest::git(const std::string& directory, std::vector<std::string> arguments) {
  Command command;
  command.argv = {"git", "-c", "safe.directory=*", "-C", directory};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  command.environment = environment_;
  command.extra_environment = {"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory",
                               "GIT_CONFIG_VALUE_0=*"};
  const auto output = run_checked(command);
  if (!output) {
    ADD_FAILURE() << shell_join(arguments) << ": " << output.error().message();
    return "";
  }
  return std::string(trim(output->out));
}

std::string CliTest::shell(const std::string& script) {
  Command command;
  command.argv = {"sh", "-euc", script};
  command.environment = environment_;
  command.working_directory = root_;
  const auto output = run_checked(command);
  if (!output) {
    ADD_FAILURE() << script << ": " << output.error().message();
    return "";
  }
  return std::string(trim(output->out));
}

void CliTest::make_repository(const std::string& path) {
  fs::create_directories(path);
  git(path, {"init", "--quiet", "--initial-branch=main"});
  git(path, {"config", "user.name", "Tester"});
  git(path, {"config", "user.email", "tester@example.org"});
  write(path + "/file", "content\n");
  git(path, {"add", "."});
  git(path, {"commit", "--quiet", "-m", "first"});
}

void CliTest::write(const std::string& path, std::string_view text) {
  std::ofstream stream(path);
  stream << text;
  EXPECT_TRUE(stream.flush()) << path;
}

std::string CliTest::read(const std::string& path) {
  std::ifstream stream(path);
  EXPECT_TRUE(stream) << path;
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::vector<std::string> CliTest::entries(const std::string& path) {
  const auto dir = open_directory(path);
  return dir ? list_directory(dir->get()).value() : std::vector<std::string>();
}

void CliTest::expect_refused(const Outcome& outcome, int code, const std::string& message) {
  EXPECT_EQ(outcome.code, code) << outcome.error;
  EXPECT_THAT(outcome.error, testing::StartsWith("error: "));
  EXPECT_THAT(outcome.error, testing::HasSubstr(message));
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(entries(state()), testing::IsEmpty());
}

}  // namespace agent_vm

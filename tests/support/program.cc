#include "support/program.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>

#include "base/text.h"
#include "os/files.h"
#include "os/run.h"

extern char** environ;

namespace agent_vm::test {
namespace {

std::vector<std::string> merged_environment(const std::vector<std::string>& changes) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  for (const auto& change : changes) {
    const auto equals = change.find('=');
    const std::string prefix = change.substr(0, equals) + "=";
    std::erase_if(environment, [&](const std::string& one) { return one.starts_with(prefix); });
    if (equals != std::string::npos) environment.push_back(change);
  }
  return environment;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

std::string Ran::describe() const {
  std::string text = timed_out     ? "it did not end in time"
                     : signal != 0 ? "ended by " + signal_name(signal)
                                   : fmt::format("exit status {}", code);
  text += fmt::format(" after {:.2f} s\n", seconds);
  if (!out.empty()) text += "stdout:\n" + escape_control(out) + "\n";
  if (!error.empty()) text += "stderr:\n" + escape_control(error) + "\n";
  return text;
}

Ran run_program(const std::vector<std::string>& argv, const RunOptions& options) {
  Command command;
  command.argv = argv;
  command.environment = merged_environment(options.environment);
  command.working_directory = options.directory;
  command.input = options.input;
  command.deadline = Deadline::in(options.patience);
  const auto begin = std::chrono::steady_clock::now();
  const auto done = run(command);
  Ran ran;
  ran.seconds = seconds_since(begin);
  if (!done) {
    ran.timed_out = done.error().kind() == ErrorKind::kTimeout;
    ran.error = done.error().message();
    return ran;
  }
  ran.code = done->exit.code;
  ran.signal = done->exit.signal;
  ran.out = done->out;
  ran.error = done->error;
  return ran;
}

Background::Background(const std::vector<std::string>& argv, const std::string& scratch,
                       const RunOptions& options) {
  static int number = 0;
  output_ = fmt::format("{}/background-{}.out", scratch, ++number);
  error_ = fmt::format("{}/background-{}.err", scratch, number);
  const Fd out(::open(output_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const Fd error(::open(error_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  SpawnSpec spec;
  spec.argv = argv;
  spec.environment = merged_environment(options.environment);
  spec.working_directory = options.directory;
  spec.descriptors = {{out.get(), 1}, {error.get(), 2}};
  auto child = spawn(spec);
  if (child) {
    child_ = std::move(*child);
  } else {
    ran_ = Ran{.error = child.error().message()};
  }
}

Background::~Background() {
  if (child_ && !ran_) wait(std::chrono::milliseconds(0));
}

void Background::signal(int number) {
  if (child_) static_cast<void>(child_.signal(number));
}

Ran Background::wait(std::chrono::milliseconds patience) {
  if (ran_) return *ran_;
  Ran ran;
  auto exit = child_.wait(Deadline::in(patience));
  if (!exit) {
    ran.timed_out = true;
    signal(SIGKILL);
    exit = child_.wait();
  }
  if (exit && !ran.timed_out) {
    ran.code = exit->code;
    ran.signal = exit->signal;
  }
  ran.seconds = seconds_since(started_);
  constexpr std::size_t kMost = 16U << 20U;
  ran.out = read_file(output_, kMost).value_or("");
  ran.error = read_file(error_, kMost).value_or("");
  ran_ = ran;
  return ran;
}

}  // namespace agent_vm::test

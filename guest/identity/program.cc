#include "identity/program.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/fd.h"
#include "base/text.h"

namespace agent_vm {

namespace {

// Null-terminated, into the strings of `argv`.
std::vector<char*> arguments_of(const std::vector<std::string>& argv) {
  std::vector<char*> arguments;
  for (const auto& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  return arguments;
}

}  // namespace

Result<ProgramOutput> run_program(const std::vector<std::string>& argv) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  const Fd read_end(ends[0]);
  Fd write_end(ends[1]);
  const auto arguments = arguments_of(argv);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "cannot start {}", argv[0]);
  if (pid == 0) {
    ::dup2(write_end.get(), 1);
    ::dup2(write_end.get(), 2);
    ::execv(argv[0].c_str(), arguments.data());
    ::_exit(127);
  }
  write_end.reset();
  std::string output;
  std::array<char, 4096> buffer{};
  ssize_t got = 0;
  while ((got = ::read(read_end.get(), buffer.data(), buffer.size())) > 0) {
    if (output.size() < 65536) output.append(buffer.data(), static_cast<std::size_t>(got));
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return ProgramOutput{WIFEXITED(status) && WEXITSTATUS(status) == 0, split_lines(output)};
}

Status start_program(const std::vector<std::string>& argv) {
  const auto arguments = arguments_of(argv);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "cannot start {}", argv[0]);
  if (pid == 0) {
    // The guest agent waits for the end of whoever holds our streams.
    const int null = ::open("/dev/null", O_RDWR);
    for (const int stream : {0, 1, 2}) ::dup2(null, stream);
    ::execv(argv[0].c_str(), arguments.data());
    ::_exit(127);
  }
  return {};
}

}  // namespace agent_vm

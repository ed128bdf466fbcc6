#include "os/run.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include "base/text.h"

namespace agent_vm {
namespace {

struct Pipe {
  Fd read;
  Fd write;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  return Pipe{Fd(ends[0]), Fd(ends[1])};
}

// Collects one stream, and hands out whole lines as they arrive.
class Collector {
 public:
  Collector(std::string& into, const std::function<void(std::string_view)>& on_line)
      : into_(into), on_line_(on_line) {}

  // False at end of stream.
  Result<bool> read_from(int fd, std::size_t max_bytes) {
    std::array<char, 65536> buffer{};
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0) {
      if (errno == EINTR || errno == EAGAIN) return true;
      return fail_errno(errno, "cannot read the program's output");
    }
    if (got == 0) return false;
    into_.append(buffer.data(), static_cast<std::size_t>(got));
    if (into_.size() > max_bytes) {
      return fail("the program printed more than {}", format_size(max_bytes));
    }
    if (on_line_) {
      for (auto end = into_.find('\n', line_start_); end != std::string::npos;
           end = into_.find('\n', line_start_)) {
        on_line_(std::string_view(into_).substr(line_start_, end - line_start_));
        line_start_ = end + 1;
      }
    }
    return true;
  }

 private:
  std::string& into_;
  const std::function<void(std::string_view)>& on_line_;
  std::size_t line_start_ = 0;
};

Status feed_input(Fd& fd, std::string_view& rest) {
  const ssize_t put = ::send(fd.get(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (put > 0) rest.remove_prefix(static_cast<std::size_t>(put));
  // A program that does not want its input is not an error.
  const bool gone = put < 0 && (errno == EPIPE || errno == ECONNRESET);
  if (put < 0 && !gone && errno != EAGAIN && errno != EINTR) {
    return fail_errno(errno, "cannot write to the program");
  }
  if (rest.empty() || gone) fd.reset();
  return {};
}

Status pump(const Command& command, Fd input, Fd out, Fd error, CommandOutput& output) {
  static const std::function<void(std::string_view)> kNobody;
  Collector out_collector(output.out, kNobody);
  Collector error_collector(output.error, command.on_error_line);
  std::string_view rest = command.input;
  if (rest.empty()) input.reset();
  while (input || out || error) {
    std::array<pollfd, 4> waits{{{input.get(), POLLOUT, 0},
                                 {out.get(), POLLIN, 0},
                                 {error.get(), POLLIN, 0},
                                 {command.interrupt_fd, POLLIN, 0}}};
    const int ready = ::poll(waits.data(), waits.size(), command.deadline.poll_ms());
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for the program");
    if (ready == 0 || command.deadline.expired()) {
      return fail(ErrorKind::kTimeout, "{} did not finish in time", command.argv[0]);
    }
    if (ready < 0) continue;
    if (waits[3].revents != 0) {
      return fail(ErrorKind::kInterrupted, "{} was interrupted", command.argv[0]);
    }
    if (input && waits[0].revents != 0) TRY(feed_input(input, rest));
    if (out && waits[1].revents != 0 &&
        !TRY(out_collector.read_from(out.get(), command.max_output))) {
      out.reset();
    }
    if (error && waits[2].revents != 0 &&
        !TRY(error_collector.read_from(error.get(), command.max_output))) {
      error.reset();
    }
  }
  return {};
}

}  // namespace

Result<CommandOutput> run(const Command& command) {
  std::array<int, 2> pair{};
  // A socket rather than a pipe as stdin: a write to it can be told not to raise SIGPIPE.
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    return fail_errno(errno, "cannot make a socket pair");
  }
  Fd input_ours(pair[0]);
  Fd input_theirs(pair[1]);
  Pipe out = TRY(make_pipe());
  Pipe error = TRY(make_pipe());

  SpawnSpec spec;
  spec.argv = command.argv;
  spec.environment = command.environment ? *command.environment : host_environment();
  spec.environment.insert(spec.environment.end(), command.extra_environment.begin(),
                          command.extra_environment.end());
  spec.working_directory = command.working_directory;
  spec.descriptors = command.descriptors;
  spec.descriptors.push_back({input_theirs.get(), 0});
  spec.descriptors.push_back({out.write.get(), 1});
  spec.descriptors.push_back({error.write.get(), 2});
  spec.new_session = true;
  spec.in_child = command.in_child;
  Child child = TRY(spawn(spec));
  input_theirs.reset();
  out.write.reset();
  error.write.reset();

  CommandOutput output;
  auto pumped =
      pump(command, std::move(input_ours), std::move(out.read), std::move(error.read), output);
  auto exit =
      pumped ? child.wait(command.deadline) : Result<Child::Exit>(tl::unexpected(pumped.error()));
  if (!exit) {
    // Its own session, hence its own group: helpers that it started go with it.
    ::kill(-child.pid(), SIGKILL);
    static_cast<void>(child.wait());
    return tl::unexpected(std::move(exit).error());
  }
  output.exit = *exit;
  return output;
}

Result<CommandOutput> run_checked(const Command& command) {
  CommandOutput output = TRY(run(command));
  if (output.ok()) return output;
  auto lines = split_lines(output.error);
  constexpr std::ptrdiff_t kShown = 20;
  if (std::ssize(lines) > kShown) lines.erase(lines.begin(), lines.end() - kShown);
  const std::string last = lines.empty() ? "" : ": " + escape_line(lines.back());
  return tl::unexpected(Error(ErrorKind::kFailed,
                              fmt::format("{} {}{}", command.argv[0], output.exit.describe(), last))
                            .with_evidence(std::move(lines)));
}

}  // namespace agent_vm

#include "process/capture.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/text.h"

namespace agent_vm::process {
namespace {

using Clock = std::chrono::steady_clock;

// Reads what is there; closes the descriptor at its end.
void read_some(Fd& fd, std::string& into, std::size_t limit, bool& truncated) {
  std::array<char, 65536> buffer;
  const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (got <= 0) {
    fd.reset();
    return;
  }
  const std::size_t room = limit - std::min(limit, into.size());
  const auto size = static_cast<std::size_t>(got);
  if (size > room) truncated = true;
  into.append(buffer.data(), std::min(size, room));
}

void write_some(Fd& fd, std::string_view& input) {
  const ssize_t put = ::write(fd.get(), input.data(), input.size());
  if (put < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (put < 0) input = {};  // it does not read its input: its own business
  if (put > 0) input.remove_prefix(static_cast<std::size_t>(put));
  if (input.empty()) fd.reset();
}

}  // namespace

Result<Captured> run_captured(SpawnSpec spec, std::string_view input, const CaptureLimits& limits) {
  Pipe in = TRY(make_pipe());
  Pipe out = TRY(make_pipe());
  Pipe err = TRY(make_pipe());
  spec.stdin_fd = in.read.get();
  spec.stdout_fd = out.write.get();
  spec.stderr_fd = err.write.get();
  Process process = TRY(spawn(spec));
  in.read.reset();
  out.write.reset();
  err.write.reset();
  ::fcntl(in.write.get(), F_SETFL, O_NONBLOCK);
  if (input.empty()) in.write.reset();

  Captured captured;
  const auto deadline = Clock::now() + limits.timeout;
  bool exited = false;
  while (!exited || out.read || err.read) {
    // A negative descriptor is skipped by poll.
    std::array<pollfd, 4> polled = {{{exited ? -1 : process.pidfd(), POLLIN, 0},
                                     {out.read.get(), POLLIN, 0},
                                     {err.read.get(), POLLIN, 0},
                                     {in.write.get(), POLLOUT, 0}}};
    // Once the leader is gone, whoever still holds the pipes was left behind by it: not waited for.
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    const int wait_ms = exited ? 0 : static_cast<int>(std::clamp<long>(left, 0, 60'000));
    const int ready = ::poll(polled.data(), polled.size(), wait_ms);
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll failed");
    if (exited && ready <= 0) break;
    if (!exited && left <= 0) {
      process.kill_group(SIGKILL);
      process.reap();
      return fail(ErrorKind::kTimeout, "{} took longer than {} ms and was ended",
                  escape_line(spec.argv[0]), limits.timeout.count());
    }
    if (polled[1].revents != 0) {
      read_some(out.read, captured.out, limits.max_output, captured.truncated);
    }
    if (polled[2].revents != 0) {
      read_some(err.read, captured.err, limits.max_output, captured.truncated);
    }
    if (polled[3].revents != 0) write_some(in.write, input);
    if (polled[0].revents != 0) {
      captured.status = process.reap();
      exited = true;
    }
  }
  return captured;
}

}  // namespace agent_vm::process

#include "process/child.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <utility>

namespace agent_vm::process {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr std::size_t kReadSize = 65536;

}  // namespace

Child::Child(asio::any_io_executor executor, Events events)
    : events_(std::move(events)),
      stdin_(executor),
      stdout_(executor),
      stderr_(executor),
      exit_(executor),
      timer_(executor) {}

Result<std::shared_ptr<Child>> Child::start(asio::any_io_executor executor, SpawnSpec spec,
                                            Events events) {
  Pipe in = TRY(make_pipe());
  Pipe out = TRY(make_pipe());
  Pipe err = TRY(make_pipe());
  const bool separate = static_cast<bool>(events.on_stderr);
  spec.stdin_fd = in.read.get();
  spec.stdout_fd = out.write.get();
  spec.stderr_fd = separate ? err.write.get() : out.write.get();

  std::shared_ptr<Child> child(new Child(std::move(executor), std::move(events)));
  child->process_ = TRY(spawn(spec));
  Fd watch(::fcntl(child->process_.pidfd(), F_DUPFD_CLOEXEC, 0));
  if (!watch) return fail_errno(errno, "cannot watch the child");
  child->stdin_.assign(in.write.release());
  child->stdout_.assign(out.read.release());
  if (separate) child->stderr_.assign(err.read.release());
  child->exit_.assign(watch.release());
  child->stdout_.native_non_blocking(true);
  if (separate) child->stderr_.native_non_blocking(true);
  child->watch_exit();
  child->read_stdout();
  if (separate) child->read_stderr();
  return child;
}

void Child::watch_exit() {
  exit_.async_wait(asio::posix::stream_descriptor::wait_read,
                   [self = shared_from_this()](error_code error) {
                     if (!error) self->finish();
                   });
}

// Waiting and reading are two steps, so that no bytes are ever in flight between the pipe and us:
// what finish() reads is then really the rest, and in order.
void Child::read_stdout() {
  if (paused_ || reading_ || !stdout_.is_open()) return;
  reading_ = true;
  stdout_.async_wait(asio::posix::stream_descriptor::wait_read,
                     [self = shared_from_this()](error_code error) {
                       self->reading_ = false;
                       if (error || self->paused_ || !self->stdout_.is_open()) return;
                       if (self->read_once(self->stdout_, self->events_.on_stdout)) {
                         self->read_stdout();
                       }
                     });
}

void Child::read_stderr() {
  stderr_.async_wait(asio::posix::stream_descriptor::wait_read,
                     [self = shared_from_this()](error_code error) {
                       if (error || !self->stderr_.is_open()) return;
                       if (self->read_once(self->stderr_, self->events_.on_stderr)) {
                         self->read_stderr();
                       }
                     });
}

// False at the end of the pipe.
bool Child::read_once(asio::posix::stream_descriptor& from,
                      const std::function<void(std::string_view)>& to) {
  // Here and not in each child: a gateway has one for every session.
  std::array<char, kReadSize> buffer;
  const ssize_t got = ::read(from.native_handle(), buffer.data(), buffer.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got <= 0) return false;
  // The owner may abandon() us, or stop us, from inside.
  const auto receive = to;
  if (receive) receive(std::string_view(buffer.data(), static_cast<std::size_t>(got)));
  return from.is_open();
}

void Child::write(std::string bytes) {
  if (!stdin_.is_open() || close_after_queue_) return;
  queued_bytes_ += bytes.size();
  queue_.push_back(std::move(bytes));
  if (writing_ || std::exchange(flushing_, true)) return;
  // After whatever else is ready to be written now: each write wakes the child.
  asio::post(stdin_.get_executor(), [self = shared_from_this()] {
    self->flushing_ = false;
    if (!self->writing_) self->write_next();
  });
}

void Child::write_next() {
  if (queue_.empty()) {
    if (close_after_queue_) {
      error_code ignored;
      stdin_.close(ignored);
    }
    return;
  }
  writing_ = true;
  in_flight_.swap(queue_);
  std::vector<asio::const_buffer> pieces;
  pieces.reserve(in_flight_.size());
  for (const auto& piece : in_flight_) pieces.emplace_back(asio::buffer(piece));
  asio::async_write(stdin_, pieces, [self = shared_from_this()](error_code error, std::size_t) {
    self->writing_ = false;
    if (error) {  // it closed its stdin; its exit, if any, is reported apart
      self->queue_.clear();
      self->queued_bytes_ = 0;
    } else {
      for (const auto& piece : self->in_flight_) self->queued_bytes_ -= piece.size();
    }
    self->in_flight_.clear();
    self->notify_drained();
    self->write_next();
  });
}

void Child::when_drained_below(std::size_t bytes, std::function<void()> action) {
  drain_mark_ = bytes;
  drain_action_ = std::move(action);
  notify_drained();
}

void Child::notify_drained() {
  if (drain_action_ && (queued_bytes_ < drain_mark_ || !running())) {
    std::exchange(drain_action_, nullptr)();
  }
}

void Child::close_stdin() {
  close_after_queue_ = true;
  if (!writing_) write_next();
}

void Child::signal(int number) {
  process_.kill_group(number);
}

void Child::stop(const StopPolicy& policy) {
  if (!running()) return;
  // A child that does not read its queue would never see an EOF behind it.
  error_code ignored;
  if (writing_) {
    stdin_.cancel(ignored);
  }
  stdin_.close(ignored);
  escalate(SIGTERM, policy.after_eof, policy.after_term);
}

void Child::escalate(int signal, std::chrono::milliseconds after, std::chrono::milliseconds then) {
  timer_.expires_after(after);
  timer_.async_wait([self = shared_from_this(), signal, then](error_code error) {
    if (error || !self->running()) return;
    self->process_.kill_group(signal);
    if (signal != SIGKILL) self->escalate(SIGKILL, then, then);
  });
}

void Child::pause_output(bool paused) {
  paused_ = paused;
  if (!paused) read_stdout();
}

void Child::abandon() {
  events_ = {};
  drain_action_ = nullptr;
}

// What the child wrote before it ended is still in the pipes. Read just that: a grandchild that
// left the group may hold the other end open for ever.
void Child::drain(asio::posix::stream_descriptor& from,
                  const std::function<void(std::string_view)>& to) {
  if (!from.is_open()) return;
  std::array<char, kReadSize> buffer;
  for (std::size_t total = 0; total < (1U << 20);) {
    const ssize_t got = ::read(from.native_handle(), buffer.data(), buffer.size());
    if (got <= 0) return;
    total += static_cast<std::size_t>(got);
    if (to) to(std::string_view(buffer.data(), static_cast<std::size_t>(got)));
  }
}

void Child::finish() {
  timer_.cancel();
  const ExitStatus status = process_.reap();
  error_code ignored;
  stdin_.close(ignored);
  drain(stdout_, events_.on_stdout);
  stdout_.close(ignored);
  if (stderr_.is_open()) {
    drain(stderr_, events_.on_stderr);
    stderr_.close(ignored);
  }
  exit_.close(ignored);
  notify_drained();
  const Events events = std::exchange(events_, {});
  if (events.on_exit) events.on_exit(status);
}

}  // namespace agent_vm::process

// A long-lived child on the event loop: its pipes, its end, and the way it is stopped.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "process/spawn.h"

namespace agent_vm::process {

// How a child is asked to go: its stdin is closed, then SIGTERM, then SIGKILL, each to the whole
// group. What a stage does not end, the next one does.
struct StopPolicy {
  std::chrono::milliseconds after_eof{2000};
  std::chrono::milliseconds after_term{2000};
};

class Child : public std::enable_shared_from_this<Child> {
 public:
  struct Events {
    std::function<void(std::string_view)> on_stdout;
    // Unset: stderr goes into the same pipe as stdout, in the order of writing.
    std::function<void(std::string_view)> on_stderr;
    // Once, last, and after the final output. What the group left behind is killed by then.
    std::function<void(ExitStatus)> on_exit;
  };

  // `spec`'s three descriptors are set here. The events run on `executor`, which is
  // single-threaded.
  static Result<std::shared_ptr<Child>> start(boost::asio::any_io_executor executor, SpawnSpec spec,
                                              Events events);

  pid_t pid() const { return process_.pid(); }
  bool running() const { return process_.running(); }

  // Queued; a child that does not read makes queued_bytes() grow, which callers look at.
  void write(std::string bytes);
  std::size_t queued_bytes() const { return queued_bytes_; }
  // Runs once when the queue has drained below `bytes`, or the child is gone.
  void when_drained_below(std::size_t bytes, std::function<void()> action);
  // After what is queued.
  void close_stdin();
  void signal(int number);
  // Begins the stop policy; on_exit tells its end. Repeating it can only shorten the wait.
  void stop(const StopPolicy& policy);
  // Back-pressure: while paused its stdout is not read.
  void pause_output(bool paused);
  // Forgets the events: their owner goes away. The child is still stopped and reaped.
  void abandon();

 private:
  Child(boost::asio::any_io_executor executor, Events events);
  void watch_exit();
  void read_stdout();
  void read_stderr();
  void write_next();
  void finish();
  bool read_once(boost::asio::posix::stream_descriptor& from,
                 const std::function<void(std::string_view)>& to);
  void drain(boost::asio::posix::stream_descriptor& from,
             const std::function<void(std::string_view)>& to);
  void escalate(int signal, std::chrono::milliseconds after, std::chrono::milliseconds then);
  void notify_drained();

  Events events_;
  Process process_;
  boost::asio::posix::stream_descriptor stdin_;
  boost::asio::posix::stream_descriptor stdout_;
  boost::asio::posix::stream_descriptor stderr_;
  boost::asio::posix::stream_descriptor exit_;
  boost::asio::steady_timer timer_;
  std::vector<std::string> queue_;
  std::vector<std::string> in_flight_;  // what a write is under way for
  std::size_t queued_bytes_ = 0;
  std::size_t drain_mark_ = 0;
  std::function<void()> drain_action_;
  bool flushing_ = false;  // a write is about to be begun
  bool writing_ = false;
  bool close_after_queue_ = false;
  bool paused_ = false;
  bool reading_ = false;
};

}  // namespace agent_vm::process

// What is known about one configured server, over all of its processes.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

namespace agent_vm::gateway {

// The last lines of stderr. Bounded both ways, because a server may write anything.
class LineRing {
 public:
  static constexpr std::size_t kMaxLines = 50;
  static constexpr std::size_t kMaxLineBytes = 500;
  void append(std::string_view bytes);
  const std::deque<std::string>& lines() const { return lines_; }
  std::string last() const { return lines_.empty() ? "" : lines_.back(); }

 private:
  std::deque<std::string> lines_;
  bool line_open_ = false;
};

class ServerState {
 public:
  using Clock = std::chrono::steady_clock;
  // So many starts in a row that did not last, and the server counts as failed.
  static constexpr int kFailedAfter = 6;

  // A process ended that nobody asked to end, `lifetime` after its start.
  void failed(Clock::time_point now, Clock::duration lifetime, std::string reason);
  // A start that leads to a finished handshake ends the back-off only if it then lasts.
  Clock::time_point next_start() const { return next_start_; }
  bool is_failed() const { return consecutive_failures_ >= kFailedAfter; }

  LineRing stderr_lines;
  std::uint64_t starts = 0;
  std::uint64_t crashes = 0;
  std::uint64_t junk_lines = 0;
  std::string last_failure;

 private:
  int consecutive_failures_ = 0;
  Clock::time_point next_start_{};
};

}  // namespace agent_vm::gateway

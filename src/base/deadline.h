// A point on the monotonic clock by which something must be done. Every wait of the tool takes
// one, and all of them derive from --timeout (M4).
#pragma once

#include <algorithm>
#include <chrono>
#include <climits>

namespace agent_vm {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  static Deadline never() { return Deadline(Clock::time_point::max()); }
  static Deadline in(std::chrono::milliseconds duration) {
    return Deadline(Clock::now() + duration);
  }

  bool is_never() const { return at_ == Clock::time_point::max(); }
  bool expired() const { return !is_never() && Clock::now() >= at_; }
  Clock::time_point at() const { return at_; }

  // For poll() and epoll_wait(): milliseconds, rounded up; -1 for never; 0 when expired.
  int poll_ms() const {
    if (is_never()) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(at_ - Clock::now()).count();
    return static_cast<int>(std::clamp<long long>(left, 0, INT_MAX));
  }
  // The earlier of this and `duration` from now.
  Deadline sooner(std::chrono::milliseconds duration) const {
    return Deadline(std::min(at_, Clock::now() + duration));
  }

 private:
  explicit Deadline(Clock::time_point at) : at_(at) {}
  Clock::time_point at_;
};

}  // namespace agent_vm

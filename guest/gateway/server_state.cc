#include "gateway/server_state.h"

#include <algorithm>

namespace agent_vm::gateway {
namespace {

using namespace std::chrono_literals;

constexpr auto kFirstDelay = 100ms;
constexpr auto kMaxDelay = 30s;
constexpr auto kLasting = 10s;

}  // namespace

void LineRing::append(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    if (!line_open_) {
      lines_.emplace_back();
      if (lines_.size() > kMaxLines) lines_.pop_front();
    }
    std::string& line = lines_.back();
    line += part.substr(0, kMaxLineBytes - std::min(kMaxLineBytes, line.size()));
    line_open_ = end == std::string_view::npos;
    bytes.remove_prefix(line_open_ ? bytes.size() : end + 1);
  }
}

void ServerState::failed(Clock::time_point now, Clock::duration lifetime, std::string reason) {
  ++crashes;
  last_failure = std::move(reason);
  if (lifetime >= kLasting) consecutive_failures_ = 0;
  ++consecutive_failures_;
  const int doublings = std::min(consecutive_failures_ - 1, 20);
  const auto delay = std::min<Clock::duration>(kFirstDelay * (1 << doublings), kMaxDelay);
  next_start_ = now + delay;
}

}  // namespace agent_vm::gateway

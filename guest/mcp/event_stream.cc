#include "mcp/event_stream.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace agent_vm::mcp {

std::string to_string(EventId id) {
  return fmt::format("{}-{}", id.stream, id.sequence);
}

std::optional<EventId> parse_event_id(std::string_view text) {
  const std::size_t dash = text.find('-');
  if (dash == std::string_view::npos) return {};
  const auto stream = parse_unsigned(text.substr(0, dash));
  const auto sequence = parse_unsigned(text.substr(dash + 1));
  if (!stream || !sequence) return {};
  return EventId{*stream, *sequence};
}

void EventStream::push(std::string message) {
  bytes_ += message.size();
  pending_ += message.size();
  events_.push_back({next_++, std::make_shared<const std::string>(std::move(message))});
  trim();
}

// What a reader is about to send stays (back-pressure bounds that part). The newest event stays
// too, whatever its size: on a request's stream it may be the response.
void EventStream::trim() {
  while (events_.size() > 1 &&
         (events_.size() > limits_.max_events || bytes_ > limits_.max_bytes)) {
    const bool undelivered = events_.front().sequence > delivered_;
    if (attached_ && undelivered) return;
    const std::size_t size = events_.front().message->size();
    bytes_ -= size;
    if (undelivered) pending_ -= size;
    events_.pop_front();
  }
}

std::optional<EventStream::Event> EventStream::after(std::uint64_t sequence) const {
  if (events_.empty() || sequence >= last()) return {};
  // Numbers are consecutive, so the place is known.
  const std::uint64_t first = events_.front().sequence;
  return events_[sequence < first ? 0 : sequence + 1 - first];
}

bool EventStream::can_resume_at(std::uint64_t sequence) const {
  if (sequence >= next_) return false;  // an event that was never sent
  return events_.empty() ? sequence == last() : sequence + 1 >= events_.front().sequence;
}

std::uint64_t EventStream::attach() {
  attached_ = true;
  return ++epoch_;
}

void EventStream::detach(std::uint64_t epoch) {
  if (epoch != epoch_) return;
  attached_ = false;
  trim();
}

void EventStream::delivered(std::uint64_t sequence) {
  for (std::uint64_t at = delivered_; at < sequence; ++at) {
    const auto event = after(at);
    if (!event || event->sequence > sequence) break;
    pending_ -= event->message->size();
    at = event->sequence - 1;
  }
  delivered_ = std::max(delivered_, sequence);
  trim();
}

}  // namespace agent_vm::mcp

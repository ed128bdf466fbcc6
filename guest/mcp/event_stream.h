// The messages of one stream to a client, kept long enough to be sent again after a broken
// connection, and never longer than the limits allow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace agent_vm::mcp {

// Streams are numbered within their session; 0 is the one that a GET opens.
using StreamId = std::uint64_t;
inline constexpr StreamId kStandaloneStream = 0;

// "<stream>-<sequence>": unique in the session, and says which stream it belongs to, so that a
// client cannot resume a stream with the cursor of another.
struct EventId {
  StreamId stream = 0;
  std::uint64_t sequence = 0;  // the first event of a stream has 1
};
std::string to_string(EventId id);
std::optional<EventId> parse_event_id(std::string_view text);

class EventStream {
 public:
  struct Limits {
    std::size_t max_events = 512;
    std::size_t max_bytes = 4U << 20;
  };
  using Message = std::shared_ptr<const std::string>;
  struct Event {
    std::uint64_t sequence = 0;
    Message message;
  };

  EventStream(StreamId id, Limits limits) : id_(id), limits_(limits) {}

  StreamId id() const { return id_; }

  void push(std::string message);
  // The last message was pushed: a reader that has everything ends its connection.
  void finish() { finished_ = true; }
  bool finished() const { return finished_; }

  // The first kept event after `sequence`.
  std::optional<Event> after(std::uint64_t sequence) const;
  // Whether a cursor at `sequence` has missed nothing: false when events behind it were dropped.
  bool can_resume_at(std::uint64_t sequence) const;
  // The newest event's number; 0 when there was none.
  std::uint64_t last() const { return next_ - 1; }

  // A connection reads this stream. At most one does: attaching again bumps the epoch, and the
  // reader that finds another epoch than its own ends.
  std::uint64_t attach();
  // Only the current reader detaches.
  void detach(std::uint64_t epoch);
  bool attached() const { return attached_; }
  std::uint64_t epoch() const { return epoch_; }
  // The reader has handed everything up to `sequence` to the client's connection.
  void delivered(std::uint64_t sequence);
  std::uint64_t delivered() const { return delivered_; }

  // Bytes that an attached reader still has to send: what back-pressure looks at.
  std::size_t pending_bytes() const { return attached_ ? pending_ : 0; }
  std::size_t kept_bytes() const { return bytes_; }

 private:
  void trim();

  StreamId id_;
  Limits limits_;
  std::deque<Event> events_;
  std::size_t bytes_ = 0;
  std::size_t pending_ = 0;  // bytes of the kept events after delivered_
  std::uint64_t next_ = 1;
  std::uint64_t delivered_ = 0;
  std::uint64_t epoch_ = 0;
  bool attached_ = false;
  bool finished_ = false;
};

}  // namespace agent_vm::mcp

#include "mcp/server_side.h"

#include <algorithm>

namespace agent_vm::mcp {

Refusal refuse(int code, std::string message, std::string_view id, int status) {
  return Refusal{status, MessageError{code, std::move(message), std::string(id), {}}};
}

EventStream& ServerSide::open_stream() {
  const StreamId id = next_stream_++;
  return streams_.emplace(id, EventStream(id, limits_)).first->second;
}

EventStream* ServerSide::stream(StreamId id) {
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : &found->second;
}

void ServerSide::push(StreamId id, std::string message, std::vector<StreamId>& touched) {
  EventStream* target = stream(id);
  if (target == nullptr) return;  // the client abandoned it
  to_one_line(message);           // a lone carriage return would end the line of an event stream
  target->push(std::move(message));
  touched.push_back(id);
}

void ServerSide::finish(StreamId id, std::vector<StreamId>& touched) {
  if (EventStream* finished = stream(id)) finished->finish();
  touched.push_back(id);
}

std::size_t ServerSide::pending_bytes() const {
  std::size_t total = 0;
  for (const auto& [id, stream] : streams_) total += stream.pending_bytes();
  return total;
}

bool ServerSide::has_attached_stream() const {
  return std::any_of(streams_.begin(), streams_.end(),
                     [](const auto& entry) { return entry.second.attached(); });
}

}  // namespace agent_vm::mcp

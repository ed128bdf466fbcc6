// Server-sent events out of the bytes of a response, as the WHATWG's HTML standard reads them, as
// far as MCP uses it. The bytes are the guest's: bounded, and nothing in them is trusted.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace agent_vm {

class EventParser {
 public:
  // An event's data, and the id that a client resumes after it with.
  using OnEvent = std::function<void(const std::string& data, const std::string& id)>;
  // False when a line or an event is longer than `max_bytes`: what follows cannot be read.
  bool feed(std::string_view bytes, std::size_t max_bytes, const OnEvent& on_event);
  const std::string& last_id() const { return id_; }

 private:
  void end_line(const OnEvent& on_event);
  std::string line_;
  std::string data_;
  std::string id_;
  bool has_data_ = false;
  bool after_return_ = false;
};

}  // namespace agent_vm

#include "control/event_parser.h"

namespace agent_vm {

bool EventParser::feed(std::string_view bytes, std::size_t max_bytes, const OnEvent& on_event) {
  while (!bytes.empty()) {
    // A line ends with CR, LF, or both.
    if (after_return_ && bytes.front() == '\n') bytes.remove_prefix(1);
    after_return_ = false;
    const std::size_t end = bytes.find_first_of("\r\n");
    const std::string_view part = bytes.substr(0, end);
    if (line_.size() + part.size() + data_.size() > max_bytes) return false;
    line_ += part;
    if (end == std::string_view::npos) return true;
    after_return_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    end_line(on_event);
  }
  return true;
}

void EventParser::end_line(const OnEvent& on_event) {
  if (line_.empty()) {
    if (has_data_ && !data_.empty()) on_event(data_, id_);
    data_.clear();
    has_data_ = false;
    return;
  }
  const std::size_t colon = line_.find(':');
  const std::string field = line_.substr(0, colon);
  std::string_view value;
  if (colon != std::string::npos) value = std::string_view(line_).substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (field == "data") {
    if (has_data_) data_ += '\n';
    data_ += value;
    has_data_ = true;
  } else if (field == "id" && value.find('\0') == std::string_view::npos) {
    id_ = value;
  }
  line_.clear();
}

}  // namespace agent_vm

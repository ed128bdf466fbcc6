// A stream of events: however its bytes are cut, the same events come out.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "control/event_parser.h"

namespace {

std::string events_of(std::string_view text, std::size_t piece) {
  agent_vm::EventParser parser;
  std::string out;
  const auto collect = [&](const std::string& data, const std::string& id) {
    out += id + "|" + data + "|";
  };
  while (!text.empty()) {
    if (!parser.feed(text.substr(0, piece), 1U << 20U, collect)) return "too large";
    text.remove_prefix(std::min(piece, text.size()));
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string whole = events_of(text, size + 1);
  if (whole != events_of(text, 1) || whole != events_of(text, 3)) std::abort();
  return 0;
}

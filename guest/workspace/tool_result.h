// What a tool answers, and how much of it: a model's context is the scarcest resource here.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace agent_vm::workspace {

struct ToolResult {
  std::string text;
  bool is_error = false;
};

// Below 25,000 tokens whatever the text is: dense text (hexadecimal, base64) has about two bytes to
// a token, prose four.
inline constexpr std::size_t kMaxOutputBytes = 48 * 1024;

// Keeps the beginning and the end of what is appended, and counts the rest: both ends of a long
// output are what one looks at. Never holds more than its limit.
class OutputBuffer {
 public:
  explicit OutputBuffer(std::size_t limit = kMaxOutputBytes) : limit_(limit) {}
  void append(std::string_view bytes);
  bool empty() const { return head_.empty(); }
  // Everything since the last take(), with a note where bytes are missing.
  std::string take();

 private:
  std::size_t limit_;
  std::string head_;
  std::string tail_;
  std::size_t omitted_ = 0;
};

// The text, shortened in the middle when it is too long.
std::string limit_output(std::string_view text, std::size_t limit = kMaxOutputBytes);

}  // namespace agent_vm::workspace

#include "workspace/tool_result.h"

#include <fmt/format.h>

#include <algorithm>

namespace agent_vm::workspace {

void OutputBuffer::append(std::string_view bytes) {
  const std::size_t half = limit_ / 2;
  if (head_.size() < half) {
    const std::size_t take = std::min(half - head_.size(), bytes.size());
    head_ += bytes.substr(0, take);
    bytes.remove_prefix(take);
  }
  tail_ += bytes;
  // Trimmed in large steps, so that many small appends do not move the tail each time.
  if (tail_.size() > 2 * half) {
    const std::size_t excess = tail_.size() - half;
    omitted_ += excess;
    tail_.erase(0, excess);
  }
}

std::string OutputBuffer::take() {
  const std::size_t half = limit_ / 2;
  if (tail_.size() > half) {
    omitted_ += tail_.size() - half;
    tail_.erase(0, tail_.size() - half);
  }
  std::string out = std::move(head_);
  if (omitted_ > 0) out += fmt::format("\n[... {} bytes are left out here ...]\n", omitted_);
  out += tail_;
  head_.clear();
  tail_.clear();
  omitted_ = 0;
  return out;
}

std::string limit_output(std::string_view text, std::size_t limit) {
  OutputBuffer buffer(limit);
  buffer.append(text);
  return buffer.take();
}

}  // namespace agent_vm::workspace

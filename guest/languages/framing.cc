#include "languages/framing.h"

#include <algorithm>
#include <optional>

#include "base/text.h"

namespace agent_vm::languages {
namespace {

constexpr std::string_view kHeaderEnd = "\r\n\r\n";
constexpr std::size_t kMaxHeader = 4096;

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return result;
}

Result<std::size_t> content_length(std::string_view header) {
  for (const auto& line : split_lines(header)) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || lower(trim(line.substr(0, colon))) != "content-length") {
      continue;
    }
    const auto length = parse_unsigned(trim(std::string_view(line).substr(colon + 1)));
    if (length && *length <= kMaxFrame) return *length;
    break;
  }
  return fail("the language server wrote a header without a usable Content-Length: {}",
              escape_line(header));
}

}  // namespace

Status FrameReader::feed(std::string_view bytes,
                         const std::function<void(std::string_view)>& on_frame) {
  buffer_ += bytes;
  std::size_t at = 0;
  while (true) {
    const std::string_view rest = std::string_view(buffer_).substr(at);
    const std::size_t end = rest.find(kHeaderEnd);
    if (end == std::string_view::npos) {
      if (rest.size() > kMaxHeader) {
        return fail("the language server writes something that is not its protocol: {}",
                    escape_line(rest.substr(0, 80)));
      }
      break;
    }
    const std::size_t length = TRY(content_length(rest.substr(0, end)));
    const std::size_t whole = end + kHeaderEnd.size() + length;
    if (rest.size() < whole) break;
    on_frame(rest.substr(end + kHeaderEnd.size(), length));
    at += whole;
  }
  buffer_.erase(0, at);
  return {};
}

std::string to_frame(std::string_view content) {
  return fmt::format("Content-Length: {}\r\n\r\n{}", content.size(), content);
}

}  // namespace agent_vm::languages

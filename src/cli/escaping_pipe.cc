#include "cli/escaping_pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/text.h"
#include "os/files.h"

namespace agent_vm {

std::size_t incomplete_tail(std::string_view text) {
  for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0U) == 0x80U) continue;  // in the middle of a character
    const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

std::string harmless(std::string_view text) {
  // Consoles end their lines with CR LF; a CR anywhere else could hide what stands before it.
  std::string kept;
  kept.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool ends_line = text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n';
    if (!ends_line) kept += text[i];
  }
  return escape_control(kept);
}

Result<EscapingPipe> EscapingPipe::make(int stream, bool always) {
  EscapingPipe pipe(stream);
  if (!always && ::isatty(stream) != 1) return pipe;
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  pipe.reader_ = Fd(ends[0]);
  pipe.writer_ = Fd(ends[1]);
  return pipe;
}

Status EscapingPipe::pump() {
  std::array<char, 16384> buffer{};
  const ssize_t got = ::read(reader_.get(), buffer.data(), buffer.size());
  if (got < 0) {
    if (errno == EINTR || errno == EAGAIN) return {};
    return fail_errno(errno, "cannot read the program's output");
  }
  std::string text = std::move(held_);
  held_.clear();
  text.append(buffer.data(), static_cast<std::size_t>(got));
  if (got == 0) {
    reader_.reset();
  } else {
    held_ = text.substr(text.size() - incomplete_tail(text));
    text.resize(text.size() - held_.size());
  }
  if (!write_all(stream_, harmless(text))) reader_.reset();  // whoever read us has gone
  return {};
}

}  // namespace agent_vm

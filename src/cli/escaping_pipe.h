// A pipe between a program and one of our own streams that lets no terminal act on what the program
// prints (S25).
#pragma once

#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

class EscapingPipe {
 public:
  // `stream`: 1 or 2. When it is no terminal and `always` is not set, there is no pipe: writer() is
  // the stream itself and every byte passes as it is.
  static Result<EscapingPipe> make(int stream, bool always);

  int writer() const { return writer_ ? writer_.get() : stream_; }  // for the child
  void close_writer() { writer_.reset(); }
  int fd() const { return reader_.get(); }  // to poll; -1: nothing to do
  bool open() const { return static_cast<bool>(reader_); }
  // Passes on what can be read now.
  Status pump();

 private:
  explicit EscapingPipe(int stream) : stream_(stream) {}
  int stream_;
  Fd reader_;
  Fd writer_;
  std::string held_;  // the beginning of a character whose rest has not come yet
};

// How many bytes at the end of `text` are the beginning of a UTF-8 character that is not complete.
std::size_t incomplete_tail(std::string_view text);

// The text with its control bytes escaped; the CR of a line's end is dropped.
std::string harmless(std::string_view text);

}  // namespace agent_vm

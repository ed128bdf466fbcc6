// JSON values, one per line, over a connected Unix socket: the framing of QMP, of the guest agent
// and of the control socket.
#pragma once

#include <boost/asio/local/stream_protocol.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "os/async.h"

namespace agent_vm {

class JsonStream {
 public:
  // A line longer than `max_line` bytes is an error: the other side decides how much it sends, not
  // how much we keep.
  JsonStream(asio::io_context& io, Fd socket, std::size_t max_line, std::string name);

  // The next value. An error at end of stream (kNotRunning), on junk, or on too long a line.
  Task<Result<nlohmann::json>> read();
  // Bytes up to the next newline, undecoded; for the guest agent's resynchronisation.
  Task<Result<std::string>> read_line();

  Task<Status> write(const nlohmann::json& value);
  Task<Status> write_raw(std::string text);
  // Passes descriptors with the value in one message (getfd).
  Status write_with_descriptor(const nlohmann::json& value, int descriptor);

  void close();

 private:
  asio::local::stream_protocol::socket socket_;
  std::size_t max_line_;
  std::string name_;
  std::string buffer_;
};

// What other programs send is text of theirs: bytes that are no UTF-8 are replaced, never thrown
// at.
std::string dump(const nlohmann::json& value);

}  // namespace agent_vm

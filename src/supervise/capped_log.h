// A log file that the guest can make grow only so far: the serial console, and what QEMU and
// virtiofsd print (S23).
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "os/async.h"

namespace agent_vm {

class CappedLog {
 public:
  // Appends to `name` in the directory open as `directory`. At `max_bytes` the file becomes
  // `name`.1, replacing an older one, so that at most twice as much is kept.
  CappedLog(int directory, std::string name, std::size_t max_bytes);

  void append(std::string_view bytes);
  // The last lines, without control bytes of a half-written last one; for evidence.
  std::vector<std::string> tail(std::size_t lines) const;

 private:
  void rotate();

  Fd directory_;
  std::string name_;
  std::size_t max_bytes_;
  Fd file_;
  std::size_t size_ = 0;
  std::deque<std::string> recent_;
  std::string partial_;
};

// Copies what arrives on a pipe or socket into the log until its end.
Task<void> pump_into(asio::io_context& io, Fd source, std::shared_ptr<CappedLog> log);

}  // namespace agent_vm

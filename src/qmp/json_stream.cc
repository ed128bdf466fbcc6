#include "qmp/json_stream.h"

#include <sys/socket.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/text.h"

namespace agent_vm {

JsonStream::JsonStream(asio::io_context& io, Fd socket, std::size_t max_line, std::string name)
    : socket_(io, asio::local::stream_protocol(), socket.release()),
      max_line_(max_line),
      name_(std::move(name)) {}

Task<Result<std::string>> JsonStream::read_line() {
  std::size_t searched = 0;
  while (true) {
    const auto newline = buffer_.find('\n', searched);
    if (newline != std::string::npos) {
      std::string line = buffer_.substr(0, newline);
      buffer_.erase(0, newline + 1);
      co_return line;
    }
    searched = buffer_.size();
    if (buffer_.size() > max_line_) {
      CO_FAIL("{} sent a line of more than {} bytes", name_, max_line_);
    }
    std::array<char, 16384> chunk{};
    const auto [error, got] =
        co_await socket_.async_read_some(asio::buffer(chunk), asio::as_tuple(asio::use_awaitable));
    if (error) CO_FAIL(ErrorKind::kNotRunning, "{} closed the connection", name_);
    buffer_.append(chunk.data(), got);
  }
}

Task<Result<nlohmann::json>> JsonStream::read() {
  auto line = co_await read_line();
  if (!line) co_return tl::unexpected(line.error());
  log::debug("{} > {}", name_, std::string_view(*line).substr(0, 2000));
  auto value = nlohmann::json::parse(*line, nullptr, false);
  if (value.is_discarded()) CO_FAIL("{} sent something that is not JSON", name_);
  co_return value;
}

Task<Status> JsonStream::write_raw(std::string text) {
  const auto [error, put] =
      co_await asio::async_write(socket_, asio::buffer(text), asio::as_tuple(asio::use_awaitable));
  if (error) CO_FAIL(ErrorKind::kNotRunning, "cannot write to {}: {}", name_, error.message());
  co_return Status();
}

Task<Status> JsonStream::write(const nlohmann::json& value) {
  std::string text = dump(value);
  log::debug("{} < {}", name_, std::string_view(text).substr(0, 2000));
  text += '\n';
  return write_raw(std::move(text));
}

Status JsonStream::write_with_descriptor(const nlohmann::json& value, int descriptor) {
  const std::string text = dump(value) + "\n";
  log::debug("{} < {} (with a descriptor)", name_, text);
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
  // A short command on a socket whose buffer is empty but for our own few commands: it fits.
  if (::sendmsg(socket_.native_handle(), &message, MSG_NOSIGNAL) != std::ssize(text)) {
    return fail_errno(errno, "cannot pass a descriptor to {}", name_);
  }
  return {};
}

void JsonStream::close() {
  boost::system::error_code ignored;
  socket_.close(ignored);
}

std::string dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace agent_vm

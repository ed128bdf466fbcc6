#include "support/http.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/text.h"
#include "os/files.h"
#include "os/socket_address.h"

namespace agent_vm::test {

namespace {

HttpReply exchange(SocketAddress address, const std::string& host, const std::string& method,
                   const std::string& target, const std::vector<std::string>& headers,
                   const std::string& body) {
  const Fd fd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), address.raw(), address.size) != 0) return {};
  std::string request = fmt::format("{} {} HTTP/1.1\r\n", method, target);
  const bool has_host =
      std::ranges::any_of(headers, [](const auto& one) { return one.starts_with("Host:"); });
  if (!has_host) request += fmt::format("Host: {}\r\n", host);
  for (const auto& header : headers) request += header + "\r\n";
  request += fmt::format("Connection: close\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
  if (!write_all(fd.get(), request)) return {};
  std::string text;
  const auto deadline = Deadline::in(std::chrono::seconds(30));
  while (true) {
    pollfd readable{fd.get(), POLLIN, 0};
    std::array<char, 65536> buffer{};
    if (::poll(&readable, 1, deadline.poll_ms()) <= 0) break;
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got <= 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  HttpReply reply;
  const auto end = text.find("\r\n\r\n");
  if (!text.starts_with("HTTP/1.1 ") || end == std::string::npos) return reply;
  reply.status = static_cast<int>(parse_unsigned(text.substr(9, 3)).value_or(0));
  reply.headers = text.substr(0, end);
  reply.body = text.substr(end + 4);
  return reply;
}

}  // namespace

HttpReply http_request(std::uint16_t port, const std::string& method, const std::string& target,
                       const std::vector<std::string>& headers, const std::string& body) {
  return exchange(tcp_address("127.0.0.1", port).value(), fmt::format("127.0.0.1:{}", port), method,
                  target, headers, body);
}

HttpReply http_request_unix(const std::string& directory, const std::string& name,
                            const std::string& method, const std::string& target,
                            const std::vector<std::string>& headers, const std::string& body) {
  const auto opened = open_directory(directory);
  if (!opened) return {};
  return exchange(unix_address(opened->get(), name), "localhost", method, target, headers, body);
}

}  // namespace agent_vm::test

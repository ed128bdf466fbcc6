#include "support/http.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/text.h"
#include "os/files.h"

namespace agent_vm::test {

HttpReply http_request(std::uint16_t port, const std::string& method, const std::string& target,
                       const std::vector<std::string>& headers, const std::string& body) {
  const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return {};
  std::string request = fmt::format("{} {} HTTP/1.1\r\n", method, target);
  const bool has_host =
      std::ranges::any_of(headers, [](const auto& one) { return one.starts_with("Host:"); });
  if (!has_host) request += fmt::format("Host: 127.0.0.1:{}\r\n", port);
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

}  // namespace agent_vm::test

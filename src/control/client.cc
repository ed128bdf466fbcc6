#include "control/client.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "base/log.h"
#include "control/protocol.h"
#include "os/socket_address.h"
#include "qmp/json_stream.h"

namespace agent_vm {

using nlohmann::json;

Result<ControlClient> ControlClient::connect(int vm_directory) {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "cannot make a socket");
  const SocketAddress address = unix_address(vm_directory, kControlSocket);
  if (::connect(socket.get(), address.raw(), address.size) != 0) {
    const int error = errno;
    if (error == ENOENT || error == ECONNREFUSED) {
      return fail(ErrorKind::kNotRunning, "the VM's supervisor does not listen");
    }
    return fail_errno(error, "cannot connect to the VM's supervisor");
  }
  return ControlClient(std::move(socket));
}

Status ControlClient::send(const json& request) {
  std::string text = dump(request) + "\n";
  log::debug("control < {}", text);
  // A request is short; the socket's buffer takes it whole.
  if (::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL) != std::ssize(text)) {
    return fail(ErrorKind::kNotRunning, "the VM's supervisor does not take requests: {}",
                errno_text(errno));
  }
  return {};
}

Result<std::string> ControlClient::read_line(const Deadline& deadline) {
  while (true) {
    if (const auto end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    if (buffer_.size() > kMaxControlLine) return fail("the VM's supervisor said too much");
    pollfd ready{socket_.get(), POLLIN, 0};
    const int polled = ::poll(&ready, 1, deadline.poll_ms());
    if (polled < 0 && errno != EINTR)
      return fail_errno(errno, "cannot wait for the VM's supervisor");
    if (polled == 0) return fail(ErrorKind::kTimeout, "the VM's supervisor did not answer in time");
    if (polled < 0) continue;
    std::array<char, 16384> chunk{};
    const ssize_t got = ::recv(socket_.get(), chunk.data(), chunk.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      return fail(ErrorKind::kNotRunning, "the VM's supervisor ended without an answer");
    buffer_.append(chunk.data(), static_cast<std::size_t>(got));
  }
}

Result<json> ControlClient::receive(const Deadline& deadline, const Progress& on_progress) {
  while (true) {
    const std::string line = TRY(read_line(deadline));
    log::debug("control > {}", line);
    const json message = json::parse(line, nullptr, false);
    if (!message.is_object()) return fail("the VM's supervisor said something that makes no sense");
    if (const auto progress = message.find("progress"); progress != message.end()) {
      if (on_progress) on_progress(progress->value("step", ""), progress->value("text", ""));
    } else if (message.value("ok", false)) {
      return message.value("result", json::object());
    } else {
      return tl::unexpected(error_from_json(message.value("error", json::object())));
    }
  }
}

Result<json> ControlClient::call(const json& request, const Deadline& deadline,
                                 const Progress& on_progress) {
  TRY(send(request));
  return receive(deadline, on_progress);
}

}  // namespace agent_vm

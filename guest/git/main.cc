// agent-vm-git-ssh: what git in the guest calls instead of ssh. There is no ssh out of the VM; this
// asks the gateway, where the owner's rules decide and the owner's ssh goes on.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "base/text.h"
#include "git/ssh_arguments.h"

namespace agent_vm {
namespace {

using nlohmann::json;

constexpr const char* kGateway = "10.66.0.1";
constexpr std::uint16_t kPort = 9418;

Result<Fd> connect_to_gateway() {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(kPort);
  ::inet_pton(AF_INET, kGateway, &address.sin_addr);
  if (!fd ||
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, "the network of this VM is off, or its gateway takes no git over SSH");
  }
  return fd;
}

Status write_whole(int to, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(to, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno(errno, "cannot write");
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

// Byte by byte, because git's own answer follows the line.
Result<json> ask(int gateway, const SshArguments& wanted) {
  const char* version = std::getenv("GIT_PROTOCOL");
  const json request = {{"service", wanted.service}, {"user", wanted.user},
                        {"host", wanted.host},       {"port", wanted.port},
                        {"path", wanted.path},       {"version", version ? version : ""}};
  TRY(write_whole(gateway, request.dump(-1, ' ', false, json::error_handler_t::replace) + "\n"));
  std::string line;
  for (char byte = 0; byte != '\n' && line.size() < 4096; line += byte) {
    if (::read(gateway, &byte, 1) != 1) return fail("the gateway gave no answer");
  }
  return json::parse(line, nullptr, false);
}

// Carries what comes on `from`, once; false at its end.
Result<bool> carry(int from, int to) {
  std::array<char, 65536> buffer{};
  const ssize_t got = ::read(from, buffer.data(), buffer.size());
  if (got < 0 && errno == EINTR) return true;
  if (got < 0) return fail_errno(errno, "the connection broke");
  if (got == 0) return false;
  TRY(write_whole(to, {buffer.data(), static_cast<std::size_t>(got)}));
  return true;
}

Status carry_both(int gateway) {
  std::array<pollfd, 2> ends{{{0, POLLIN, 0}, {gateway, POLLIN, 0}}};
  bool answered = false;
  while (true) {
    if (::poll(ends.data(), ends.size(), -1) < 0 && errno != EINTR)
      return fail_errno(errno, "cannot wait");
    if (ends[0].revents != 0 && !TRY(carry(0, gateway))) {
      ::shutdown(gateway, SHUT_WR);
      ends[0].fd = -1;
    }
    if (ends[1].revents == 0) continue;
    if (!TRY(carry(gateway, 1))) break;
    answered = true;
  }
  if (!answered) {
    return fail("the repository's host gave no answer; the VM's owner sees why: agent-vm net log");
  }
  return {};
}

Status run(const std::vector<std::string>& arguments) {
  const SshArguments wanted = TRY(parse_ssh_arguments(arguments));
  const Fd gateway = TRY(connect_to_gateway());
  const json answer = TRY(ask(gateway.get(), wanted));
  if (!answer.is_object() || !answer.value("ok", false))
    return fail("{}", answer.is_object() ? answer.value("error", "refused") : "refused");
  return carry_both(gateway.get());
}

}  // namespace
}  // namespace agent_vm

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  const auto status = agent_vm::run({argv + 1, argv + argc});
  if (status) return 0;
  std::fprintf(stderr, "agent-vm: %s\n", status.error().message().c_str());
  return 255;
}

#include "state/ports.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>

#include "base/log.h"
#include "base/text.h"

namespace agent_vm {
namespace {

using AddressList = std::unique_ptr<addrinfo, decltype([](addrinfo* a) { ::freeaddrinfo(a); })>;

Result<AddressList> lookup(const std::string& host, const char* port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_PASSIVE;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(host.c_str(), port, &hints, &list);
  if (error != 0) {
    return fail(ErrorKind::kInvalidInput, "'{}' is not an address of this machine: {}",
                escape_line(host), ::gai_strerror(error));
  }
  return AddressList(list);
}

Result<Fd> bind_to(const addrinfo& address) {
  Fd fd(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "cannot make a socket");
  // As the supervisor does: connections that linger after a stop must not count as taken.
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0) {
    return fail_errno(errno, "cannot bind");
  }
  // Two bound sockets may share an address until one of them listens.
  if (::listen(fd.get(), 1) != 0) return fail_errno(errno, "cannot listen");
  return fd;
}

// Port -> the VM that has it in its configuration.
std::map<std::uint16_t, std::string> ports_of_vms(const StateDirectory& state,
                                                  const std::string& except) {
  std::map<std::uint16_t, std::string> taken;
  const auto names = state.names();
  if (!names) return taken;
  for (const auto& name : *names) {
    if (name == except) continue;
    const auto vm = state.vm(name);
    if (!vm) continue;
    const auto config = vm->read_config();
    if (!config) {
      log::warn("{}", config.error().message());
      continue;
    }
    taken[config->port] = name;
    taken[config->ssh_port] = name;
  }
  return taken;
}

}  // namespace

Result<std::string> resolve_bind_address(const std::string& host) {
  // "localhost" may resolve to ::1 first, which clients that were told 127.0.0.1 would miss.
  if (host == "localhost") return std::string("127.0.0.1");
  const AddressList list = TRY(lookup(host, nullptr, 0));
  std::array<char, NI_MAXHOST> text{};
  if (::getnameinfo(list->ai_addr, list->ai_addrlen, text.data(), text.size(), nullptr, 0,
                    NI_NUMERICHOST) != 0) {
    return fail(ErrorKind::kInvalidInput, "'{}' is not an address", escape_line(host));
  }
  const std::string address = text.data();
  const AddressList any_port = TRY(lookup(address, "0", AI_NUMERICHOST | AI_NUMERICSERV));
  if (const auto bound = bind_to(*any_port); !bound) {
    return fail(ErrorKind::kInvalidInput, "'{}' ({}) is not an address of this machine: {}",
                escape_line(host), address, bound.error().message());
  }
  return address;
}

Status can_bind(const std::string& address, std::uint16_t port) {
  const AddressList list =
      TRY(lookup(address, std::to_string(port).c_str(), AI_NUMERICHOST | AI_NUMERICSERV));
  TRY(bind_to(*list));
  return {};
}

Result<std::uint16_t> choose_port(const StateDirectory& state, const PortRequest& request) {
  const auto taken = ports_of_vms(state, request.except_vm);
  if (request.asked) {
    const std::uint16_t port = *request.asked;
    if (const auto owner = taken.find(port); owner != taken.end()) {
      return fail(ErrorKind::kInvalidInput, "the {} {} is taken by VM '{}'", request.what, port,
                  owner->second);
    }
    if (const auto bindable = can_bind(request.address, port); !bindable) {
      return fail(ErrorKind::kInvalidInput, "the {} {} is taken on {}: {}", request.what, port,
                  request.address, bindable.error().message());
    }
    return port;
  }
  constexpr std::uint32_t kTried = 2000;
  for (std::uint32_t port = request.first; port < request.first + kTried && port < 65536; ++port) {
    const auto candidate = static_cast<std::uint16_t>(port);
    if (taken.contains(candidate) || request.avoid == candidate) continue;
    if (can_bind(request.address, candidate)) return candidate;
  }
  return fail("no free {} from {} up on {}", request.what, request.first, request.address);
}

Result<bool> replace_taken_ports(const StateDirectory& state, VmConfig& config) {
  struct Port {
    std::uint16_t& number;
    std::uint16_t other;
    std::uint16_t first;
    const char* setting;
    const char* what;
  };
  bool replaced = false;
  for (const Port& port :
       {Port{config.port, config.ssh_port, kFirstMcpPort, kPortSetting, "MCP port"},
        Port{config.ssh_port, config.port, kFirstSshPort, kSshPortSetting, "SSH port"}}) {
    const auto& asked = config.explicit_settings;
    if (std::ranges::find(asked, port.setting) != asked.end()) continue;
    if (can_bind(config.bind_address, port.number)) continue;
    port.number = TRY(choose_port(state, {.address = config.bind_address,
                                          .first = port.first,
                                          .avoid = port.other,
                                          .except_vm = config.name,
                                          .what = port.what}));
    replaced = true;
  }
  return replaced;
}

}  // namespace agent_vm

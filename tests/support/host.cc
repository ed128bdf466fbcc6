#include "support/host.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/text.h"
#include "os/socket_address.h"

namespace agent_vm::test {
namespace fs = std::filesystem;

namespace {

std::vector<pid_t> all_processes() {
  std::vector<pid_t> pids;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    if (const auto pid = parse_unsigned(entry.path().filename().string())) {
      pids.push_back(static_cast<pid_t>(*pid));
    }
  }
  return pids;
}

std::vector<std::string> lines_with(const std::string& path, const std::string& text) {
  std::vector<std::string> found;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.find(text) != std::string::npos) found.push_back(line);
  }
  return found;
}

std::optional<Listener> bound(const std::string& text, std::uint16_t port, int type) {
  auto address = tcp_address(text, port);
  if (!address) return std::nullopt;
  Listener listener;
  listener.fd = Fd(::socket(address->family(), type | SOCK_CLOEXEC, 0));
  if (!listener.fd || ::bind(listener.fd.get(), address->raw(), address->size) != 0)
    return std::nullopt;
  if (type == SOCK_STREAM && ::listen(listener.fd.get(), 64) != 0) return std::nullopt;
  ::getsockname(listener.fd.get(), address->raw(), &address->size);
  listener.port =
      ntohs(reinterpret_cast<sockaddr_in*>(address->raw())->sin_port);  // v6: the same place
  return listener;
}

// It has ended; its parent, which need not be ours, has not looked yet.
bool is_zombie(pid_t pid) {
  return status_field(fmt::format("/proc/{}/status", pid), "State").starts_with('Z');
}

constexpr std::array kNamespaceKinds{"user", "pid_for_children", "pid", "net", "mnt", "ipc", "uts"};

}  // namespace

std::string status_field(const std::string& path, const std::string& field) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(field + ":")) return std::string(trim(line.substr(field.size() + 1)));
  }
  return "";
}

std::vector<ProcessIdentity> descendants(pid_t pid) {
  std::multimap<pid_t, pid_t> children;
  for (const pid_t each : all_processes()) {
    const auto parent = status_field(fmt::format("/proc/{}/status", each), "PPid");
    children.emplace(static_cast<pid_t>(parse_unsigned(parent).value_or(0)), each);
  }
  std::vector<ProcessIdentity> found;
  std::vector<pid_t> open{pid};
  while (!open.empty()) {
    const auto [first, last] = children.equal_range(open.back());
    open.pop_back();
    for (auto child = first; child != last; ++child) {
      open.push_back(child->second);
      if (auto identity = identify(child->second)) found.push_back(*identity);
    }
  }
  return found;
}

std::vector<pid_t> threads(pid_t pid) {
  std::vector<pid_t> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(fmt::format("/proc/{}/task", pid), error)) {
    found.push_back(
        static_cast<pid_t>(parse_unsigned(entry.path().filename().string()).value_or(0)));
  }
  return found;
}

std::string namespace_of(pid_t pid, const std::string& kind) {
  std::error_code error;
  return fs::read_symlink(fmt::format("/proc/{}/ns/{}", pid, kind), error).string();
}

std::string command_line(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/cmdline", pid));
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::ranges::replace(text, '\0', ' ');
  return std::string(trim(text));
}

std::vector<std::string> processes_with(const std::string& text) {
  std::vector<std::string> found;
  for (const pid_t pid : all_processes()) {
    const auto line = command_line(pid);
    if (line.find(text) != std::string::npos)
      found.push_back(fmt::format("process {} ({})", pid, line));
  }
  return found;
}

Footprint Footprint::of(pid_t supervisor) {
  Footprint print;
  if (auto identity = identify(supervisor)) print.processes.push_back(*identity);
  for (auto& process : descendants(supervisor)) print.processes.push_back(std::move(process));
  for (const auto& process : print.processes) {
    for (const auto* kind : kNamespaceKinds) {
      const auto name = namespace_of(process.pid, kind);
      if (name.empty()) continue;
      Fd held(
          ::open(fmt::format("/proc/{}/ns/{}", process.pid, kind).c_str(), O_RDONLY | O_CLOEXEC));
      // Gone, or another one by now: then there is nothing to look for.
      if (held && namespace_of(process.pid, kind) == name)
        print.namespaces[name] = std::make_shared<Fd>(std::move(held));
    }
  }
  for (const auto* kind : kNamespaceKinds) print.namespaces.erase(namespace_of(::getpid(), kind));
  return print;
}

std::vector<std::string> Footprint::leftovers() const {
  std::vector<std::string> found;
  for (const auto& process : processes) {
    if (is_running(process) && !is_zombie(process.pid))
      found.push_back(fmt::format("process {} ({})", process.pid, command_line(process.pid)));
  }
  for (const pid_t pid : all_processes()) {
    if (is_zombie(pid)) continue;
    for (const auto* kind : kNamespaceKinds) {
      const auto name = namespace_of(pid, kind);
      if (namespaces.contains(name)) {
        found.push_back(fmt::format("process {} ({}) in {}", pid, command_line(pid), name));
        break;
      }
    }
  }
  return found;
}

std::vector<std::string> mounts_with(const std::string& text) {
  return lines_with("/proc/self/mountinfo", text);
}

std::vector<std::string> unix_sockets_with(const std::string& text) {
  return lines_with("/proc/self/net/unix", text);
}

std::vector<std::string> socket_files(const std::string& directory) {
  std::vector<std::string> found;
  std::error_code error;
  const auto skip = fs::directory_options::skip_permission_denied;
  for (const auto& entry : fs::recursive_directory_iterator(directory, skip, error)) {
    if (entry.is_socket(error)) found.push_back(entry.path().string());
  }
  return found;
}

bool Listener::was_reached() const {
  pollfd ready{fd.get(), POLLIN, 0};
  return ::poll(&ready, 1, 0) > 0;
}

std::optional<Listener> listen_on(const std::string& address, std::uint16_t port) {
  return bound(address, port, SOCK_STREAM);
}

std::optional<Listener> receive_on(const std::string& address) {
  return bound(address, 0, SOCK_DGRAM);
}

bool can_connect(const std::string& address, std::uint16_t port) {
  const auto target = tcp_address(address, port);
  if (!target) return false;
  const Fd fd(::socket(target->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  return ::connect(fd.get(), target->raw(), target->size) == 0;
}

std::uint16_t free_port() {
  const auto listener = listen_on("127.0.0.1");
  return listener ? listener->port : 0;
}

std::vector<std::string> tcp_listeners(std::uint16_t port) {
  // Columns of /proc/net/tcp: number, local address:port, remote, state (0A: listening).
  const auto suffix = fmt::format(":{:04X}", port);
  std::vector<std::string> found;
  for (const auto* path : {"/proc/self/net/tcp", "/proc/self/net/tcp6"}) {
    for (const auto& line : lines_with(path, suffix + " ")) {
      std::vector<std::string> fields;
      for (const auto& field : split(line, ' ')) {
        if (!field.empty()) fields.push_back(field);
      }
      if (fields.size() < 4 || fields[3] != "0A" || !fields[1].ends_with(suffix)) continue;
      const std::string hex = fields[1].substr(0, fields[1].size() - suffix.size());
      if (hex.size() == 8) {
        in_addr address{};
        address.s_addr = static_cast<in_addr_t>(std::stoul(hex, nullptr, 16));
        std::array<char, INET_ADDRSTRLEN> text{};
        ::inet_ntop(AF_INET, &address, text.data(), text.size());
        found.push_back(fmt::format("{}:{}", text.data(), port));
      } else {
        found.push_back(fmt::format("[{}]:{}", hex, port));
      }
    }
  }
  return found;
}

std::vector<std::string> host_addresses() {
  std::vector<std::string> found;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return found;
  for (auto* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (entry->ifa_addr->sa_family == AF_INET) {
      const auto* v4 = reinterpret_cast<sockaddr_in*>(entry->ifa_addr);
      ::inet_ntop(AF_INET, &v4->sin_addr, text.data(), text.size());
    } else if (entry->ifa_addr->sa_family == AF_INET6) {
      const auto* v6 = reinterpret_cast<sockaddr_in6*>(entry->ifa_addr);
      if (IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr)) continue;
      ::inet_ntop(AF_INET6, &v6->sin6_addr, text.data(), text.size());
    } else {
      continue;
    }
    found.emplace_back(text.data());
  }
  ::freeifaddrs(list);
  return found;
}

}  // namespace agent_vm::test

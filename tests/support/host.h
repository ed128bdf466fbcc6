// The host as the kernel shows it: processes, namespaces, mounts, sockets.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/fd.h"
#include "os/process_identity.h"

namespace agent_vm::test {

// Value of a field of /proc/<pid>/status, or of another file of the same form; empty when absent.
std::string status_field(const std::string& path, const std::string& field);

// All processes whose chain of parents leads to `pid`, without it.
std::vector<ProcessIdentity> descendants(pid_t pid);
// Threads of a process.
std::vector<pid_t> threads(pid_t pid);
// "net:[4026531840]", or empty when it cannot be read.
std::string namespace_of(pid_t pid, const std::string& kind);
// Its arguments, joined by spaces.
std::string command_line(pid_t pid);

// One line for each process whose arguments, joined by spaces, have `text` in them.
std::vector<std::string> processes_with(const std::string& text);

// A VM's processes and namespaces as they were while it ran, to find out what is left of it later.
struct Footprint {
  std::vector<ProcessIdentity> processes;  // supervisor first
  // By name, none of the host's own; held open, because the kernel soon gives the name of one that
  // is gone to another.
  std::map<std::string, std::shared_ptr<Fd>> namespaces;

  static Footprint of(pid_t supervisor);
  // One line for each process that still runs, and for each process in one of the namespaces.
  std::vector<std::string> leftovers() const;
};

// Mounts of this process's namespace with `text` in them.
std::vector<std::string> mounts_with(const std::string& text);
// Names of Unix sockets with `text` in them, of this network namespace.
std::vector<std::string> unix_sockets_with(const std::string& text);
// Paths of sockets in the file system below a directory.
std::vector<std::string> socket_files(const std::string& directory);

// A listening TCP socket, IPv4 or IPv6 by the form of the address. Port 0: any free one.
struct Listener {
  Fd fd;
  std::uint16_t port = 0;
  // Whether somebody has connected by now.
  bool was_reached() const;
};
std::optional<Listener> listen_on(const std::string& address, std::uint16_t port = 0);
// A UDP socket, bound.
std::optional<Listener> receive_on(const std::string& address);
bool can_connect(const std::string& address, std::uint16_t port);
// One that nothing listens on now, on 127.0.0.1.
std::uint16_t free_port();
// "0.0.0.0:8000" for every listening TCP socket with that port.
std::vector<std::string> tcp_listeners(std::uint16_t port);
// Numeric addresses of this host's interfaces, loopback included, without IPv6 link-local ones.
std::vector<std::string> host_addresses();

}  // namespace agent_vm::test

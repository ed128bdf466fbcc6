// Socket addresses, from text and from names in a directory.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace agent_vm {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  int family() const { return storage.ss_family; }
  sockaddr* raw() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// Of a numeric IPv4 or IPv6 address; names are not looked up.
Result<SocketAddress> tcp_address(const std::string& address, std::uint16_t port);

// Of the Unix socket `name` in an open directory, however long that directory's own path is.
SocketAddress unix_address(int directory, std::string_view name);

}  // namespace agent_vm

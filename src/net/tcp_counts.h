// What a TCP connection has carried so far, by the kernel's count.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace agent_vm {

struct TcpCounts {
  std::uint64_t received = 0;      // bytes from the other end
  std::uint64_t acknowledged = 0;  // bytes that the other end has taken
};
Result<TcpCounts> tcp_counts(int socket);

}  // namespace agent_vm

// Listening sockets on the host, bound and held before anything of a VM starts.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

// A TCP socket listening on `address` (numeric IPv4 or IPv6). A port that someone has is an error
// that names it (F17).
Result<Fd> listen_tcp(const std::string& address, std::uint16_t port);

// A Unix stream socket listening under `name` in an open directory, mode 0600. One that is there is
// replaced: the caller knows that nobody uses it.
Result<Fd> listen_unix(int directory, const std::string& name);

}  // namespace agent_vm

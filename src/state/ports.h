// Choosing ports on the host. What is chosen here is only a proposal that is good now: the
// supervisor binds before anything starts, and says so when it cannot (F17).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "state/state_directory.h"

namespace agent_vm {

inline constexpr std::uint16_t kFirstMcpPort = 8000;
inline constexpr std::uint16_t kFirstSshPort = 2222;

// The numeric address that `host` means on this machine: a literal, or a name that resolves.
Result<std::string> resolve_bind_address(const std::string& host);

// Whether a listener could be bound there now.
Status can_bind(const std::string& address, std::uint16_t port);

struct PortRequest {
  std::string address;                  // numeric
  std::optional<std::uint16_t> asked;   // this one or none
  std::uint16_t first = kFirstMcpPort;  // otherwise the first free one from here up
  std::optional<std::uint16_t> avoid;   // chosen for something else already
  std::string except_vm;                // whose own ports do not count as taken (update)
  const char* what = "port";            // for messages
};
// Call with the state directory's lock held.
Result<std::uint16_t> choose_port(const StateDirectory& state, const PortRequest& request);

// In VmConfig::explicit_settings: the user named this port, so it is never changed for him.
inline constexpr const char* kPortSetting = "port";
inline constexpr const char* kSshPortSetting = "ssh_port";

// Replaces the ports that nobody asked for by number and that somebody has taken since they were
// chosen (F17). True when one was. Call with the locks of the VM and of the state directory held,
// while the VM does not run.
Result<bool> replace_taken_ports(const StateDirectory& state, VmConfig& config);

}  // namespace agent_vm

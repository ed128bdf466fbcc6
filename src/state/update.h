// Changing a VM's configuration.
#pragma once

#include "base/result.h"
#include "config/settings.h"
#include "state/state_directory.h"

namespace agent_vm {

struct UpdateRequest {
  std::optional<std::string> host;
  std::optional<std::uint16_t> port;
  std::optional<std::uint16_t> ssh_port;
  Settings owner_settings;
  Settings repository_settings;  // agreed to
  Settings flags;
};

// The configuration that `old` becomes, not written yet. What was named on the command line, now or
// before, is stronger than any file. Call with the state directory's lock held, for the ports.
Result<VmConfig> updated_config(const StateDirectory& state, const VmConfig& old,
                                const UpdateRequest& request);

struct Change {
  std::string what;
  std::string from;
  std::string to;
};
std::vector<Change> differences(const VmConfig& from, const VmConfig& to);

}  // namespace agent_vm

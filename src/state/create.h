// Making a VM: its directory appears as a whole or not at all.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "config/settings.h"
#include "state/source_repository.h"
#include "state/state_directory.h"
#include "state/workspace.h"

namespace agent_vm {

struct CreateRequest {
  SourceRepository source;
  std::string name;  // empty: "<repository>-<branch>"
  std::string host = "127.0.0.1";
  std::optional<std::uint16_t> port;
  std::optional<std::uint16_t> ssh_port;
  // Weakest first. What the repository widens has been agreed to.
  Settings owner_settings;
  Settings repository_settings;
  Settings flags;
  std::optional<FileOwner> workspace_owner;  // absent: the caller
};

// Defaults for this host, with the owner's settings over them: what a repository's file narrows or
// widens.
VmConfig base_config(const HostResources& host, const Settings& owner_settings);

// The names that VmConfig::explicit_settings uses, of what `flags` sets.
std::vector<std::string> explicit_settings(const Settings& flags);

// "VM configuration already exists" when the name is taken. On any error nothing is left behind.
Result<VmConfig> create_vm(const StateDirectory& state, const CreateRequest& request,
                           const Bounds& bounds);

}  // namespace agent_vm

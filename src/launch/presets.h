// What the presets of network rules stand for on this machine.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "config/vm_config.h"
#include "launch/package_sources.h"

namespace agent_vm {

// The rules that `preset` ("@npm") stands for; none when this machine's configuration names
// nothing.
Result<std::vector<std::string>> expand_preset(const std::string& preset, const VmConfig& config,
                                               const PackageSources& sources);

// The rules under which git can fetch from an http or https URL, and not push to it.
std::vector<std::string> git_fetch_rules(std::string_view url);

}  // namespace agent_vm

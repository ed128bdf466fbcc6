// What the presets of network rules stand for on this machine.
#pragma once

#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "config/vm_config.h"
#include "state/vm_directory.h"

namespace agent_vm {

// The rules that `preset` ("@npm") stands for; none when this machine's configuration names
// nothing. Package registries are never named in the code: what apt and npm of this machine use,
// the guest may use.
Result<std::vector<std::string>> expand_preset(const std::string& preset, const VmDirectory& vm,
                                               const VmConfig& config, const Deadline& deadline);

// The host of an http or https URL, lower case; empty when it is none.
std::string host_of_url(std::string_view url);
// The rules under which git can fetch from an http or https URL, and not push to it.
std::vector<std::string> git_fetch_rules(std::string_view url);

}  // namespace agent_vm

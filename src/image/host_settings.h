// What of this machine's environment the programs that fetch packages are given.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace agent_vm {

// host_environment(), and how to get out: proxies, certificates, and npm's own variables. Never
// anything else, such as tokens of other programs.
std::vector<std::string> fetch_environment();

// The lines of `apt-config dump` that say how apt reaches its sources: proxies, certificates,
// retries, and whether the age of package lists is checked. Hooks and everything else stay out.
std::string apt_network_settings(std::string_view apt_config_dump);

}  // namespace agent_vm

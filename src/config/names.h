// Names that users and repositories choose, before they become file names, host names or arguments.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace agent_vm {

// A VM's name is a file name, a host name and a part of a git reference: 1 to 63 letters, digits,
// '-', '_' and '.', starting with a letter or a digit, without "..", not ending in ".lock" or '.',
// and not a name that the state directory uses itself.
Status valid_vm_name(std::string_view name);

// "<repository>-<branch>" with everything else replaced by '-'. A name that would be too long is
// cut and ends in a hash of the whole.
std::string make_vm_name(std::string_view repository, std::string_view branch);

Status valid_package_name(std::string_view name);  // Debian Policy 5.6.1
Status valid_npm_spec(std::string_view spec);      // name or @scope/name, with an optional @version
// "@scope/name@1.2.3" -> "@scope/name"
std::string npm_package_name(std::string_view spec);
// "build-tools", or several joined by '+'.
Status valid_image_variant(std::string_view variant);
Status valid_mcp_server_name(std::string_view name);
// "https://claude.ai", "http://localhost:3000": scheme, host, optional port, nothing else.
Status valid_origin(std::string_view origin);
Status valid_environment_name(std::string_view name);

// `text` as a port; `what` names it in the error.
Result<std::uint16_t> parse_port(std::string_view text, std::string_view what);

}  // namespace agent_vm

// The tools' input schemas, and the check of a call against them. One table serves both, so that
// what is published is what is enforced.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"

namespace agent_vm::workspace {

using Json = nlohmann::ordered_json;

// tools/list's `tools`, always in the same order.
const Json& tool_definitions();

// Checks `arguments` of a call to `tool`: unknown tool or argument (the nearest known one is
// named), missing, of a wrong type, out of range.
Status check_arguments(const std::string& tool, const Json& arguments);
// The same against other definitions of tools.
Status check_arguments(const Json& definitions, const std::string& tool, const Json& arguments);

}  // namespace agent_vm::workspace

// What `agent-vm net` is made of, besides its options.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "cli/output.h"
#include "state/vm_directory.h"

namespace agent_vm {

// The rules that would allow what the policy has refused, narrowest first, from the audit log: a
// host and the methods that were used, none that a rule of the owner's refuses.
Result<std::vector<std::string>> rules_for_refused(const VmDirectory& vm);

// What the VM's proxy decides about a request for an http or https URL, by its own code: "allowed",
// "rule", "why".
Result<nlohmann::ordered_json> web_decision(const VmDirectory& vm, const std::string& method,
                                            const std::string& url, const Deadline& deadline);

// A line of the audit log for people: "12:00:01  refused  GET https://evil.example/  (no rule
// ...)".
std::string net_line(const Output& out, std::string_view json_line);

}  // namespace agent_vm

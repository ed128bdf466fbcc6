// What this machine has, lacks, and how to mend it. Every check tries the thing itself where it
// can: that a file is there, or opens, proves little.
#pragma once

#include <string>
#include <vector>

#include "base/deadline.h"

namespace agent_vm {

struct Check {
  enum class Level {
    kOk,
    kWarning,  // VMs run, but slower, less isolated, or perhaps not for long
    kMissing,  // no VM can run, or none can be made
  };
  std::string id;     // stable: "kvm", "subordinate-ids"
  std::string title;  // "KVM"
  Level level = Level::kOk;
  std::string detail;  // one line: what was found
  std::string mend;    // the command that mends it; empty when nothing is to be mended
};
const char* to_string(Check::Level level);  // "ok", "warning", "missing"

// `state_path`: where VMs are kept, or will be.
std::vector<Check> examine_machine(const std::string& state_path, const Deadline& deadline);

}  // namespace agent_vm

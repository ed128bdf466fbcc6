// Printing a log file of a VM's directory, and what is added to it, across rotations.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/deadline.h"
#include "base/result.h"
#include "state/vm_directory.h"

namespace agent_vm {

struct LogFile {
  std::string current;  // relative to the VM's directory
  std::string older;    // what rotation has put aside
};

// What is printed for a line, when that is not the line itself.
using LineFormat = std::function<std::string(std::string_view line)>;

// Prints the last `lines` lines on stdout, with control bytes escaped. `follow`: and everything
// that is added, until the deadline, which then is no error.
Status print_log(const VmDirectory& vm, const LogFile& file, std::uint64_t lines, bool follow,
                 const Deadline& deadline, const LineFormat& format = {});

}  // namespace agent_vm

// Running a program of the guest to its end.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace agent_vm {

struct ProgramOutput {
  bool ok = false;
  std::vector<std::string> lines;  // both streams, cut at 64 KiB
};

Result<ProgramOutput> run_program(const std::vector<std::string>& argv);

// Leaves it running, without output. It must not matter how it ends.
Status start_program(const std::vector<std::string>& argv);

}  // namespace agent_vm

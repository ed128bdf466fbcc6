// Runs a short-lived helper (rg, git) to its end, on a worker thread.
#pragma once

#include <chrono>
#include <string>

#include "process/spawn.h"

namespace agent_vm::process {

struct CaptureLimits {
  std::chrono::milliseconds timeout{30'000};
  std::size_t max_output = 1U << 20;  // of each stream; the rest is read and dropped
};

struct Captured {
  ExitStatus status;
  std::string out;
  std::string err;
  bool truncated = false;  // some output was dropped
};

// Feeds `input` to its stdin and collects both outputs. Blocks. A helper that takes longer than the
// timeout is killed with its group: kTimeout.
Result<Captured> run_captured(SpawnSpec spec, std::string_view input = {},
                              const CaptureLimits& limits = {});

}  // namespace agent_vm::process

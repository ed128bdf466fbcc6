// Exit statuses of agent-vm; scripts depend on them (docs/manual/agent-vm.md lists them).
#pragma once

#include "base/result.h"

namespace agent_vm {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,
  kExitInvalidInput = 2,
  kExitNotRunning = 3,
  kExitUnhealthy = 4,  // status: the VM runs, but not everything in it does
  kExitNotFound = 5,
  kExitTimeout = 6,
  kExitMissing = 7,  // the machine lacks something that is needed
  kExitInterrupted = 130,
};

constexpr ExitCode exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidInput:
      return kExitInvalidInput;
    case ErrorKind::kNotFound:
      return kExitNotFound;
    case ErrorKind::kNotRunning:
      return kExitNotRunning;
    case ErrorKind::kTimeout:
      return kExitTimeout;
    case ErrorKind::kMissing:
      return kExitMissing;
    case ErrorKind::kInterrupted:
      return kExitInterrupted;
    case ErrorKind::kFailed:
    case ErrorKind::kInternal:
      break;
  }
  return kExitFailed;
}

}  // namespace agent_vm

// agent-mcp's life: start, serve, reload, drain.
#pragma once

#include <string>

#include "gateway/config.h"

namespace agent_vm::gateway {

// Runs until SIGTERM or SIGINT. Returns the process's exit status; errors are logged.
int run(const Config& config);

}  // namespace agent_vm::gateway

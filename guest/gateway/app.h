// agent-mcp's life: start, serve, reload, drain.
#pragma once

#include <string>

#include "gateway/config.h"

namespace agent_vm::gateway {

// Runs until SIGTERM or SIGINT. SIGHUP reads the servers, the allowed origins and hosts, and the
// token again. Returns the process's exit status; errors are logged.
int run(Config config, const std::string& config_file);

}  // namespace agent_vm::gateway

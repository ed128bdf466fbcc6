// The parts of `agent-vm mcp`, each with its own options.
#pragma once

#include "cli/context.h"

namespace agent_vm {

void add_mcp_list(CLI::App& mcp, Context& context);
void add_mcp_add(CLI::App& mcp, Context& context);
void add_mcp_remove(CLI::App& mcp, Context& context);
void add_mcp_tools(CLI::App& mcp, Context& context);
void add_mcp_call(CLI::App& mcp, Context& context);
void add_mcp_logs(CLI::App& mcp, Context& context);
void add_mcp_config(CLI::App& mcp, Context& context);

}  // namespace agent_vm

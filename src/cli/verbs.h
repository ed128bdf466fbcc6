// Every verb, in the order in which --help shows them. One file per verb: cli/<verb>_command.cc.
#pragma once

#include "cli/context.h"

namespace agent_vm {

void add_create(CLI::App& app, Context& context);
void add_start(CLI::App& app, Context& context);
void add_status(CLI::App& app, Context& context);
void add_stop(CLI::App& app, Context& context);
void add_restart(CLI::App& app, Context& context);
void add_suspend(CLI::App& app, Context& context);
void add_resume(CLI::App& app, Context& context);
void add_fork(CLI::App& app, Context& context);
void add_reset(CLI::App& app, Context& context);
void add_shell(CLI::App& app, Context& context);
void add_exec(CLI::App& app, Context& context);
void add_logs(CLI::App& app, Context& context);
void add_net(CLI::App& app, Context& context);
void add_fetch(CLI::App& app, Context& context);
void add_mcp(CLI::App& app, Context& context);
void add_list(CLI::App& app, Context& context);
void add_config(CLI::App& app, Context& context);
void add_update(CLI::App& app, Context& context);
void add_trust(CLI::App& app, Context& context);
void add_destroy(CLI::App& app, Context& context);
void add_undo_destroy(CLI::App& app, Context& context);
void add_image(CLI::App& app, Context& context);
void add_doctor(CLI::App& app, Context& context);
void add_completion(CLI::App& app, Context& context);

}  // namespace agent_vm

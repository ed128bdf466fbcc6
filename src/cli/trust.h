// Agreeing to what a repository's agent-vm.toml asks for (S30).
#pragma once

#include "base/result.h"
#include "cli/context.h"
#include "config/settings.h"
#include "state/trust_store.h"

namespace agent_vm {

// The lines that show a person what `file` would widen.
std::vector<std::string> describe(const std::vector<Widening>& widenings);

// Returns the repository's settings, ready to be applied to `base`: they widen nothing, or the
// owner has agreed to this very content before, or does so now: by `trust_flag`, or by answering on
// a terminal. Otherwise an error that shows the difference and the command to run.
Result<Settings> agreed_settings(Context& context, const std::string& repository,
                                 const VmConfig& base, bool trust_flag);

}  // namespace agent_vm

// The command line: parses, finds the verb, runs it, prints its error.
#pragma once

#include <string>
#include <vector>

namespace agent_vm {

// `arguments` without the program's name. Returns the exit status.
int run_cli(const std::vector<std::string>& arguments, const std::string& version);

}  // namespace agent_vm

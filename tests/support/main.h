// The command line and the course of a test program for VMs.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace agent_vm::test {

// Adds --agent-vm, --timeout, --debug, --verbose and --keep.
void add_common_options(CLI::App& app);

// Checks the program under test and makes the root directory; prints why not.
bool prepare_run();

// Runs the registered tests that `filters` select (a part of the name, or a glob), with a summary
// as the last line. Returns the exit status.
int run_tests(const std::vector<std::string>& filters);
int list_tests(const std::vector<std::string>& filters);

}  // namespace agent_vm::test

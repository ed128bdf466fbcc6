// What stands between a crash of the tests and a machine full of VMs.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace agent_vm::test {

// Runs `work` in a child process and returns its exit status, or 1 when a signal ended it. SIGINT,
// SIGTERM and SIGHUP end the child and with it the run; whatever happens, the caller goes on.
int run_guarded(const std::function<int()>& work);

// Ends every VM that runs below the tests' root directory and removes the directories that no
// failed test wants kept. Lines say what should not have been there any more.
std::vector<std::string> sweep(const std::string& root);

// Tells sweep() that a directory below the root belongs to a failed test.
void keep_directory(const std::string& directory);
bool is_kept(const std::string& directory);

}  // namespace agent_vm::test

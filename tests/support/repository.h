// Git repositories for tests to make VMs of.
#pragma once

#include <string>
#include <vector>

namespace agent_vm::test {

// git with nothing of the caller's own configuration. The test fails when git does; what git
// printed, trimmed.
std::string git(const std::string& directory, const std::vector<std::string>& arguments);

// A repository with two commits on `main`, some files, and two remotes.
void make_repository(const std::string& path);

void write_file(const std::string& path, std::string_view text);
std::string read_text(const std::string& path);

}  // namespace agent_vm::test

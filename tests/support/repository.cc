#include "support/repository.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "support/program.h"

namespace agent_vm::test {

std::string git(const std::string& directory, const std::vector<std::string>& arguments) {
  // safe.directory: run by root, these tests look into workspaces that belong to another id.
  std::vector<std::string> argv{"git",
                                "-c",
                                "user.name=Test",
                                "-c",
                                "user.email=test@localhost",
                                "-c",
                                "safe.directory=*",
                                "-c",
                                "commit.gpgsign=false",
                                "-C",
                                directory};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  const Ran ran = run_program(
      argv, {.environment = {"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C"}});
  EXPECT_TRUE(ran.ok()) << shell_join(argv) << "\n" << ran.describe();
  return std::string(trim(ran.out));
}

void make_repository(const std::string& path) {
  std::filesystem::create_directories(path + "/src");
  git(path, {"init", "-q", "-b", "main"});
  write_file(path + "/README.md", "A repository for tests.\n");
  write_file(path + "/src/hello.c", "int main(void) { return 0; }\n");
  git(path, {"add", "."});
  git(path, {"commit", "-q", "-m", "First"});
  write_file(path + "/README.md", "A repository for tests of agent-vm.\n");
  git(path, {"commit", "-q", "-a", "-m", "Second"});
  git(path, {"remote", "add", "origin", "https://origin.invalid/team/project.git"});
  git(path, {"remote", "add", "upstream", "https://upstream.invalid/project.git"});
}

void write_file(const std::string& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  EXPECT_TRUE(file.flush()) << "cannot write " << path;
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace agent_vm::test

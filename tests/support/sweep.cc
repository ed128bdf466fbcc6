#include "support/sweep.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "support/options.h"
#include "support/program.h"
#include "support/repository.h"

namespace agent_vm::test {
namespace fs = std::filesystem;

namespace {

constexpr const char* kKeep = "kept-because-a-test-failed";

std::vector<fs::path> directories_in(const fs::path& path) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    if (entry.is_directory(error) && !entry.is_symlink(error)) found.push_back(entry.path());
  }
  return found;
}

// A workspace can hold files of the VM's subordinate ids, which only agent-vm can remove.
void destroy(const fs::path& state, const std::string& name) {
  run_program(
      {options().agent_vm, "--state-dir", state.string(), "destroy", "--purge", "--yes", name});
}

}  // namespace

void keep_directory(const std::string& directory) {
  write_file(directory + "/" + kKeep, "");
}

bool is_kept(const std::string& directory) {
  return options().keep || fs::exists(directory + "/" + kKeep);
}

int run_guarded(const std::function<int()>& work) {
  sigset_t watched;
  sigset_t before;
  ::sigemptyset(&watched);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) ::sigaddset(&watched, number);
  ::sigprocmask(SIG_BLOCK, &watched, &before);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    ::setpgid(0, 0);
    const int status = work();
    std::fflush(nullptr);
    ::_exit(status);
  }
  ::setpgid(child, child);
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    int number = 0;
    ::sigwait(&watched, &number);
    if (number == SIGCHLD) continue;
    std::fprintf(stderr, "interrupted: cleaning up\n");
    ::kill(-child, SIGKILL);
    ::waitpid(child, &status, 0);
    break;
  }
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

std::vector<std::string> sweep(const std::string& root) {
  std::vector<std::string> found;
  bool something_is_kept = false;
  const fs::path cache = fs::path(root) / "cache";
  for (const auto& test : directories_in(root)) {
    if (test == cache) continue;
    const bool keep = is_kept(test.string());
    something_is_kept = something_is_kept || keep;
    const fs::path state = test / "state";
    for (const auto& vm : directories_in(state)) {
      const std::string name = vm.filename();
      if (name == "trash") continue;
      if (fs::exists(vm / "run.json")) {
        if (!keep) found.push_back("VM " + vm.string() + " still ran");
        run_program({options().agent_vm, "--state-dir", state.string(), "stop", "--force", name});
      }
      if (!keep) destroy(state, name);
    }
    std::error_code error;
    if (!keep) fs::remove_all(test, error);
    if (error) found.push_back("cannot remove " + test.string() + ": " + error.message());
  }
  std::error_code error;
  // Disks that are kept need the image that they are overlays on.
  if (!something_is_kept) fs::remove_all(cache, error);
  fs::remove(root, error);
  return found;
}

}  // namespace agent_vm::test

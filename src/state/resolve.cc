// Which VM a command means.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "base/text.h"
#include "config/names.h"
#include "os/files.h"
#include "state/state_directory.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxGitFile = 4096;

// The directory that holds HEAD: .git itself, or what a .git file of a linked working tree names.
Result<std::string> git_directory(const fs::path& top) {
  const fs::path dot_git = top / ".git";
  std::error_code error;
  if (fs::is_directory(dot_git, error)) return dot_git.string();
  const std::string content = TRY(read_file(dot_git.string(), kMaxGitFile));
  constexpr std::string_view kPrefix = "gitdir: ";
  if (!content.starts_with(kPrefix)) return fail("{} is not a git file", dot_git.string());
  return (top / std::string(trim(std::string_view(content).substr(kPrefix.size())))).string();
}

struct Candidate {
  std::string name;
  VmConfig config;
};

Error none_for(std::string_view what) {
  return Error(ErrorKind::kNotFound, fmt::format("there is no VM for {}", what))
      .with_hint("see: agent-vm list; make one with: agent-vm create");
}

// If `directory` is inside a VM of `state`, that VM's name.
std::optional<std::string> name_of_workspace(const StateDirectory& state,
                                             const std::string& directory) {
  const std::string prefix = state.path() + "/";
  if (!directory.starts_with(prefix)) return std::nullopt;
  const std::string rest = directory.substr(prefix.size());
  return rest.substr(0, rest.find('/'));
}

}  // namespace

std::string detached_branch_name(std::string_view commit) {
  return fmt::format("detached-{}", commit.substr(0, 12));
}

Result<CurrentBranch> find_current_branch(const std::string& directory) {
  std::error_code error;
  for (fs::path top = directory;; top = top.parent_path()) {
    if (fs::exists(top / ".git", error)) {
      const std::string git = TRY(git_directory(top));
      const std::string content = TRY(read_file(git + "/HEAD", kMaxGitFile));
      const auto head = trim(content);
      constexpr std::string_view kBranch = "ref: refs/heads/";
      if (head.starts_with(kBranch)) {
        return CurrentBranch{top.string(), std::string(head.substr(kBranch.size()))};
      }
      return CurrentBranch{top.string(), detached_branch_name(head)};
    }
    if (top == top.parent_path()) break;
  }
  return fail(ErrorKind::kNotFound, "{} is not in a git repository", escape_line(directory));
}

Result<VmDirectory> resolve_vm(const StateDirectory& state,
                               const std::optional<std::string>& argument,
                               const std::string& directory) {
  if (argument && valid_vm_name(*argument) && exists_at(state.fd(), *argument)) {
    return state.vm(*argument);
  }
  if (!argument) {
    if (const auto name = name_of_workspace(state, directory)) return state.vm(*name);
  }
  const auto current = find_current_branch(directory);
  if (!argument && !current) {
    return tl::unexpected(
        Error(ErrorKind::kInvalidInput, "no VM named, and " + current.error().message())
            .with_hint("name one: agent-vm list shows them"));
  }
  const std::string branch = argument ? *argument : current->branch;

  std::vector<std::string> here;
  std::vector<std::string> elsewhere;
  const std::vector<std::string> names = TRY(state.names());
  for (const auto& name : names) {
    const VmDirectory vm = TRY(state.vm(name));
    const auto config = vm.read_config();
    if (!config || config->branch != branch) continue;
    const bool ours = current && config->source_repo == current->repository;
    (ours ? here : elsewhere).push_back(name);
  }
  if (!argument) {
    if (here.empty()) {
      return tl::unexpected(none_for(
          fmt::format("branch '{}' of {}", escape_line(branch), escape_line(current->repository))));
    }
    elsewhere.clear();
  }
  const auto& found = here.empty() ? elsewhere : here;
  if (found.size() == 1) return state.vm(found[0]);
  if (found.size() > 1) {
    return fail(ErrorKind::kInvalidInput, "'{}' could be any of: {}", escape_line(branch),
                join(found, ", "));
  }
  const auto near = nearest(branch, names);
  return fail(ErrorKind::kNotFound, "there is no VM '{}'{}", escape_line(branch),
              near ? fmt::format("; did you mean '{}'?", *near) : "");
}

}  // namespace agent_vm

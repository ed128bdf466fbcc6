#include "state/workspace.h"

#include <unistd.h>

#include <algorithm>

#include "base/text.h"
#include "os/files.h"
#include "state/vm_directory.h"

namespace agent_vm {
namespace {

constexpr const char* kGitConfig = "git.config";

// The only configuration that the commands below read. So no filter, no hook, no credential helper
// and no URL rewriting of the user's or of the system's can take part; in particular a repository's
// .gitattributes finds no filter program to run on checkout.
//
// safe.directory: inspect_source() has run git in the source under the user's own configuration,
// which is where git decides whether it is to be trusted.
constexpr const char* kGitConfigText =
    "[safe]\n\tdirectory = *\n"
    "[fetch]\n\trecurseSubmodules = false\n"
    "[submodule]\n\trecurse = false\n";

class WorkspaceGit {
 public:
  WorkspaceGit(std::string directory, std::string config, const Bounds& bounds)
      : directory_(std::move(directory)), config_(std::move(config)), bounds_(bounds) {}

  Status run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"-C", directory_});
    Command command = git_command(arguments, bounds_, "file");
    command.extra_environment.push_back("GIT_CONFIG_GLOBAL=" + config_);
    command.extra_environment.emplace_back("GIT_CONFIG_NOSYSTEM=1");
    command.extra_environment.emplace_back("GIT_ATTR_NOSYSTEM=1");
    const CommandOutput output = TRY(agent_vm::run(command));
    if (output.ok()) return {};
    return tl::unexpected(git_error(output, "git"));
  }

  Status set(const std::string& key, const std::string& value) const {
    if (value.empty()) return {};
    return run({"config", "--local", "--", key, value});
  }

 private:
  std::string directory_;
  std::string config_;
  Bounds bounds_;
};

Status set_remote(const WorkspaceGit& git, const std::string& name, const std::string& url) {
  if (url.empty()) return {};
  TRY(git.set("remote." + name + ".url", url));
  return git.set("remote." + name + ".fetch", fmt::format("+refs/heads/*:refs/remotes/{}/*", name));
}

}  // namespace

Status make_workspace(const SourceRepository& source, int dir, const std::string& path,
                      const std::optional<FileOwner>& owner, const Bounds& bounds) {
  TRY(make_directory_at(dir, vm_files::kWorkspace, 0755));
  TRY(write_file_atomic(dir, kGitConfig, kGitConfigText, 0600));
  const WorkspaceGit git(path + "/" + vm_files::kWorkspace, path + "/" + kGitConfig, bounds);
  TRY(git.run({"init", "--quiet", "--template=", "--initial-branch=" + source.branch,
               "--object-format=" + source.object_format}));
  // By the pack protocol, never by copying object files: nothing of the source's is linked or
  // borrowed (S8b). Its other local branches stay at home.
  TRY_CONTEXT(
      git.run({"fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head",
               "--update-head-ok", "--update-shallow", "--", source.top,
               fmt::format("+{}:refs/heads/{}", source.from_ref, source.branch),
               "+refs/remotes/origin/*:refs/remotes/origin/*",
               "+refs/remotes/upstream/*:refs/remotes/upstream/*", "+refs/tags/*:refs/tags/*"}),
      "cloning {}", escape_line(source.top));
  TRY_CONTEXT(git.run({"reset", "--quiet", "--hard"}), "checking out {}",
              escape_line(source.branch));
  TRY(set_remote(git, "origin", source.origin));
  TRY(set_remote(git, "upstream", source.upstream));
  TRY(git.set("user.name", source.user_name));
  TRY(git.set("user.email", source.user_email));
  TRY(remove_tree_at(dir, kGitConfig));
  if (owner) TRY(change_owner_at(dir, vm_files::kWorkspace, owner->uid, owner->gid));
  return {};
}

}  // namespace agent_vm

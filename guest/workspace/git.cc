#include "workspace/git.h"

#include <chrono>

#include "base/text.h"
#include "process/capture.h"
#include "workspace/environment.h"

namespace agent_vm::workspace {
namespace {

class Git {
 public:
  explicit Git(Fd directory) : directory_(std::move(directory)) {}

  // Hooks may run a whole test suite, so a commit gets more time than the default.
  Result<process::Captured> run(const std::vector<std::string>& arguments,
                                std::string_view input = {}) const {
    process::SpawnSpec spec;
    spec.argv = {"git", "--no-pager", "-c", "color.ui=false", "-c", "core.quotePath=false"};
    spec.argv.insert(spec.argv.end(), arguments.begin(), arguments.end());
    spec.environment = helper_environment();
    spec.cwd_fd = directory_.get();
    process::CaptureLimits limits;
    limits.timeout = std::chrono::minutes(5);
    return process::run_captured(std::move(spec), input, limits);
  }

  // The output of a command that must succeed.
  Result<std::string> need(const std::vector<std::string>& arguments,
                           std::string_view input = {}) const {
    process::Captured captured = TRY(run(arguments, input));
    if (captured.status.success()) return std::move(captured.out);
    const std::string text = captured.err + captured.out;
    return fail(ErrorKind::kInvalidInput, "git {} {}: {}", arguments.front(),
                to_string(captured.status),
                limit_output(escape_control(std::string(trim(text))), 8192));
  }

 private:
  Fd directory_;
};

Status check_range(const std::string& range) {
  // An option in the place of a revision could write files (--output=...).
  if (range.starts_with('-')) {
    return fail(ErrorKind::kInvalidInput, "\"{}\" is not a revision or a range",
                escape_line(range));
  }
  return {};
}

}  // namespace

Result<ToolResult> git_diff_tool(const Root& root, const GitDiffOptions& options) {
  TRY(check_range(options.range));
  const Git git(TRY(root.open_directory(options.repository)));
  std::string text = TRY(git.need({"status", "--short", "--branch", "--untracked-files=all"}));
  std::vector<std::string> arguments = {"diff", "--no-ext-diff", "--no-textconv"};
  if (options.staged) arguments.emplace_back("--cached");
  if (options.stat) arguments.emplace_back("--stat");
  if (!options.range.empty()) arguments.push_back(options.range);
  arguments.emplace_back("--");
  arguments.insert(arguments.end(), options.paths.begin(), options.paths.end());
  text += "\n" + TRY(git.need(arguments));
  return ToolResult{limit_output(escape_control(text))};
}

Result<ToolResult> git_commit_tool(const Root& root, const GitCommitOptions& options) {
  if (trim(options.message).empty()) {
    return fail(ErrorKind::kInvalidInput, "the commit message is empty");
  }
  const Git git(TRY(root.open_directory(options.repository)));
  std::vector<std::string> add = {"add", "--all", "--"};
  add.insert(add.end(), options.paths.begin(), options.paths.end());
  if (options.paths.empty()) add.emplace_back(".");
  TRY(git.need(add));

  std::vector<std::string> commit;
  // The owner's identity when the clone has one; a commit must not fail for the want of it.
  const process::Captured identity = TRY(git.run({"var", "GIT_AUTHOR_IDENT"}));
  if (!identity.status.success()) {
    commit = {"-c", "user.name=agent", "-c", "user.email=agent@localhost"};
  }
  commit.insert(commit.end(), {"commit", "--file=-", "--cleanup=strip"});
  if (!options.paths.empty()) {
    commit.emplace_back("--");
    commit.insert(commit.end(), options.paths.begin(), options.paths.end());
  }
  const process::Captured committed = TRY(git.run(commit, options.message));
  if (!committed.status.success()) {
    return fail(
        ErrorKind::kInvalidInput, "nothing was committed: {}",
        limit_output(escape_control(std::string(trim(committed.err + committed.out))), 8192));
  }
  const std::string shown =
      TRY(git.need({"show", "--stat", "--no-ext-diff", "--format=%H%n%an <%ae>%n%s", "HEAD"}));
  return ToolResult{limit_output(escape_control(shown))};
}

}  // namespace agent_vm::workspace

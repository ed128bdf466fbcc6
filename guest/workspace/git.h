// The two git operations that every coding session needs; exec runs all others.
#pragma once

#include <string>
#include <vector>

#include "workspace/root.h"
#include "workspace/tool_result.h"

namespace agent_vm::workspace {

struct GitDiffOptions {
  std::string repository = ".";  // a directory of the workspace
  std::string range;             // "main...HEAD", "HEAD~2"; empty: the working tree
  bool staged = false;
  bool stat = false;  // only the summary
  std::vector<std::string> paths;
};
Result<ToolResult> git_diff_tool(const Root& root, const GitDiffOptions& options);

struct GitCommitOptions {
  std::string repository = ".";
  std::string message;
  std::vector<std::string> paths;  // empty: everything that changed
};
Result<ToolResult> git_commit_tool(const Root& root, const GitCommitOptions& options);

}  // namespace agent_vm::workspace

// Finding files and text, by ripgrep: it is fast, knows .gitignore and never follows links.
#pragma once

#include <cstdint>
#include <string>

#include "workspace/root.h"
#include "workspace/tool_result.h"

namespace agent_vm::workspace {

// Files whose path matches `pattern` ("**/*.cc"), newest first, below the directory `path`.
Result<ToolResult> glob_tool(const Root& root, const std::string& pattern, const std::string& path,
                             std::uint64_t limit);

struct GrepOptions {
  std::string pattern;         // a regular expression
  std::string path = ".";      // a directory or one file
  std::string glob;            // only files whose path matches; empty: all
  std::string mode = "lines";  // "lines", "files" or "count"
  std::uint64_t context = 0;
  std::uint64_t limit = 500;  // lines of output
  bool ignore_case = false;
  bool literal = false;
  bool multiline = false;
  bool ignored_files = false;  // also what .gitignore excludes
};
Result<ToolResult> grep_tool(const Root& root, const GrepOptions& options);

}  // namespace agent_vm::workspace

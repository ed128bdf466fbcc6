// apply_patch: the envelope format that several models write ("*** Begin Patch"), or a unified
// diff.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "workspace/root.h"
#include "workspace/tool_result.h"

namespace agent_vm::workspace {

struct PatchHunk {
  std::string anchor;  // text after "@@": a line that comes before the hunk; empty: none
  std::vector<std::string> before;
  std::vector<std::string> after;
  bool at_end = false;  // "*** End of File"
};
struct FilePatch {
  enum class Action { kAdd, kDelete, kUpdate } action = Action::kUpdate;
  std::string path;
  std::optional<std::string> move_to;
  std::string content;  // of an added file
  std::vector<PatchHunk> hunks;
};

// Parses the envelope format; a message names the line that is wrong.
Result<std::vector<FilePatch>> parse_patch(std::string_view text);

// The file's text after the hunks, each of which must match in order.
Result<std::string> apply_hunks(std::string_view content, const FilePatch& patch);

// Applies a whole patch, or nothing of it: every new text is worked out before the first is
// written. Unified diffs go to `git apply`, which has the same property.
Result<ToolResult> apply_patch_tool(const Root& root, const std::string& text);

}  // namespace agent_vm::workspace

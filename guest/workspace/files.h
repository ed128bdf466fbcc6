// Reading and changing files of the workspace. All of it blocks: for worker threads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "workspace/root.h"
#include "workspace/tool_result.h"

namespace agent_vm::workspace {

// Larger files are for grep and exec.
inline constexpr std::size_t kMaxFileBytes = 64U << 20;

// A regular file's bytes.
Result<std::string> load(const Root& root, const std::string& name);

// What the file must still be at the moment it is replaced.
struct Expected {
  enum class State { kAnything, kAbsent, kContent } state = State::kAnything;
  std::string content;  // for kContent
};
// Writes a temporary file beside the target, checks `expected`, then renames it into place: nobody
// ever sees half a file, and a change that somebody made in between is not lost. Keeps the mode of
// an existing file. Refuses a target that is read-only or no regular file.
Status store(const Root& root, const std::string& name, std::string_view content,
             const Expected& expected);
Status remove(const Root& root, const std::string& name, const Expected& expected);

// Lines `offset` (from 1) to offset + limit - 1, numbered. A directory is listed.
Result<ToolResult> read_tool(const Root& root, const std::string& name, std::uint64_t offset,
                             std::uint64_t limit);
Result<ToolResult> write_tool(const Root& root, const std::string& name, std::string_view content);
// Replaces `old_text`, which must occur exactly once unless `all`.
Result<ToolResult> edit_tool(const Root& root, const std::string& name, std::string_view old_text,
                             std::string_view new_text, bool all);

}  // namespace agent_vm::workspace

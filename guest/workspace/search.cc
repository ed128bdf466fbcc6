#include "workspace/search.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "base/text.h"
#include "process/capture.h"
#include "workspace/environment.h"

namespace agent_vm::workspace {
namespace {

constexpr std::size_t kMaxRead = 4U << 20;

// The first `limit` lines, and how many there were when that is known.
std::string first_lines(const std::string& text, std::uint64_t limit, bool truncated) {
  const std::vector<std::string> lines = split_lines(text);
  const std::size_t shown = std::min<std::size_t>(limit, lines.size());
  std::string out = join(std::span(lines).first(shown), "\n");
  if (shown < lines.size() || truncated) {
    out += fmt::format("\n[the first {} of {}{} lines; narrow the search or raise limit]", shown,
                       truncated ? "more than " : "", lines.size());
  }
  return limit_output(out);
}

Result<process::Captured> run_rg(std::vector<std::string> arguments, const Fd& directory) {
  process::SpawnSpec spec;
  spec.argv = {"rg", "--no-config", "--color=never", "--hidden", "--glob=!.git"};
  spec.argv.insert(spec.argv.end(), arguments.begin(), arguments.end());
  spec.environment = helper_environment();
  spec.cwd_fd = directory.get();
  process::CaptureLimits limits;
  limits.max_output = kMaxRead;
  process::Captured captured = TRY(process::run_captured(std::move(spec), {}, limits));
  // 1: nothing found. 2: an error, which may have come beside results (an unreadable folder).
  if (captured.status.signaled || (captured.status.value >= 2 && captured.out.empty())) {
    return fail(ErrorKind::kInvalidInput, "{}",
                captured.err.empty()
                    ? "rg " + to_string(captured.status)
                    : limit_output(escape_control(std::string(trim(captured.err))), 4096));
  }
  return captured;
}

std::string prefix_of(const std::string& path) {
  if (path == ".") return "";
  return path.ends_with('/') ? path : path + "/";
}

}  // namespace

Result<ToolResult> glob_tool(const Root& root, const std::string& pattern, const std::string& path,
                             std::uint64_t limit) {
  const Fd directory = TRY(root.open_directory(path));
  const process::Captured found =
      TRY(run_rg({"--files", "--null", "--sortr=modified", "--glob", pattern}, directory));
  std::string text;
  const std::string prefix = prefix_of(TRY(root.relative(path)));
  for (const std::string& name : split(found.out, '\0')) {
    if (!name.empty()) text += prefix + escape_line(name) + "\n";
  }
  if (text.empty()) return ToolResult{"[no file matches]"};
  return ToolResult{first_lines(text, limit, found.truncated)};
}

Result<ToolResult> grep_tool(const Root& root, const GrepOptions& options) {
  std::vector<std::string> arguments;
  if (options.mode == "files") {
    arguments.emplace_back("--files-with-matches");
  } else if (options.mode == "count") {
    arguments.emplace_back("--count");
  } else {
    arguments.insert(arguments.end(), {"--line-number", "--no-heading", "--max-columns=500",
                                       "--max-columns-preview"});
    if (options.context > 0) arguments.push_back(fmt::format("--context={}", options.context));
  }
  arguments.insert(arguments.end(), {"--with-filename", "--sort=path"});
  if (options.ignore_case) arguments.emplace_back("--ignore-case");
  if (options.literal) arguments.emplace_back("--fixed-strings");
  if (options.multiline) arguments.insert(arguments.end(), {"--multiline", "--multiline-dotall"});
  if (options.ignored_files) arguments.emplace_back("--no-ignore");
  if (!options.glob.empty()) arguments.insert(arguments.end(), {"--glob", options.glob});
  arguments.insert(arguments.end(), {"--regexp", options.pattern, "--"});

  // A directory is entered by its checked descriptor; a file is named within its directory's.
  Fd directory;
  if (auto opened = root.open_directory(options.path)) {
    directory = std::move(*opened);
    arguments.emplace_back(".");
  } else {
    TRY(root.open_file(options.path, O_PATH));
    Root::Place place = TRY(root.place(options.path, false));
    directory = std::move(place.directory);
    arguments.push_back("./" + place.name);
  }
  const process::Captured found = TRY(run_rg(std::move(arguments), directory));
  if (found.out.empty()) return ToolResult{"[no match]"};
  std::string text = escape_control(found.out);
  if (options.path != ".") {
    text = fmt::format("[paths are relative to {}]\n{}", options.path, text);
  }
  return ToolResult{first_lines(text, options.limit, found.truncated)};
}

}  // namespace agent_vm::workspace

#include "workspace/patch.h"

#include <fcntl.h>

#include <algorithm>
#include <filesystem>

#include "base/text.h"
#include "process/capture.h"
#include "workspace/environment.h"
#include "workspace/files.h"

namespace agent_vm::workspace {
namespace {

constexpr std::string_view kBegin = "*** Begin Patch";
constexpr std::string_view kEnd = "*** End Patch";
constexpr std::string_view kAdd = "*** Add File: ";
constexpr std::string_view kDelete = "*** Delete File: ";
constexpr std::string_view kUpdate = "*** Update File: ";
constexpr std::string_view kMove = "*** Move to: ";
constexpr std::string_view kEof = "*** End of File";

std::optional<std::string> after_prefix(const std::string& line, std::string_view prefix) {
  if (!line.starts_with(prefix)) return {};
  return std::string(trim(std::string_view(line).substr(prefix.size())));
}

// A line-by-line reader of the envelope format.
class PatchParser {
 public:
  explicit PatchParser(std::string_view text) : lines_(split_lines(text)) {}

  Result<std::vector<FilePatch>> parse() {
    while (more() && trim(line()).empty()) ++at_;
    if (!more() || trim(line()) != kBegin) return wrong("a patch begins with \"*** Begin Patch\"");
    ++at_;
    std::vector<FilePatch> patches;
    while (more() && trim(line()) != kEnd) {
      if (trim(line()).empty()) {
        ++at_;
        continue;
      }
      patches.push_back(TRY(file()));
    }
    if (!more()) return wrong("the patch has no \"*** End Patch\"");
    if (patches.empty()) return wrong("the patch changes no file");
    return patches;
  }

 private:
  bool more() const { return at_ < lines_.size(); }
  const std::string& line() const { return lines_[at_]; }
  bool at_header() const { return line().starts_with("*** ") && line() != kEof; }

  tl::unexpected<Error> wrong(std::string_view what) const {
    return fail(ErrorKind::kInvalidInput, "line {} of the patch: {}{}", at_ + 1, what,
                more() ? ", not \"" + escape_line(line().substr(0, 100)) + "\"" : "");
  }

  Result<FilePatch> file() {
    FilePatch patch;
    if (const auto added = after_prefix(line(), kAdd)) {
      patch.action = FilePatch::Action::kAdd;
      patch.path = *added;
      ++at_;
      for (; more() && !at_header(); ++at_) {
        if (!line().starts_with('+')) return wrong("a line of an added file begins with +");
        patch.content += line().substr(1) + "\n";
      }
    } else if (const auto deleted = after_prefix(line(), kDelete)) {
      patch.action = FilePatch::Action::kDelete;
      patch.path = *deleted;
      ++at_;
    } else if (const auto updated = after_prefix(line(), kUpdate)) {
      patch.path = *updated;
      ++at_;
      if (more()) patch.move_to = after_prefix(line(), kMove);
      if (patch.move_to) ++at_;
      while (more() && !at_header()) patch.hunks.push_back(TRY(hunk()));
      if (patch.hunks.empty() && !patch.move_to) return wrong("the update has no change");
    } else {
      return wrong("expected \"*** Add File: \", \"*** Update File: \" or \"*** Delete File: \"");
    }
    if (patch.path.empty()) return wrong("the file has no name");
    return patch;
  }

  Result<PatchHunk> hunk() {
    PatchHunk hunk;
    if (line().starts_with("@@")) {
      hunk.anchor = trim(std::string_view(line()).substr(2));
      ++at_;
    }
    const std::size_t start = at_;
    for (; more() && !line().starts_with("@@") && !at_header(); ++at_) {
      const std::string& text = line();
      if (text == kEof) {
        hunk.at_end = true;
        ++at_;
        break;
      }
      const std::string rest = text.empty() ? "" : text.substr(1);
      if (text.empty() || text.front() == ' ') {
        hunk.before.push_back(rest);
        hunk.after.push_back(rest);
      } else if (text.front() == '-') {
        hunk.before.push_back(rest);
      } else if (text.front() == '+') {
        hunk.after.push_back(rest);
      } else {
        return wrong("a line of a change begins with a space, + or -");
      }
    }
    if (at_ == start) return wrong("a change without lines");
    return hunk;
  }

  std::vector<std::string> lines_;
  std::size_t at_ = 0;
};

std::string without_trailing_space(const std::string& line) {
  const std::size_t end = line.find_last_not_of(" \t\r");
  return end == std::string::npos ? "" : line.substr(0, end + 1);
}

// Where `wanted` comes in `lines` from `from` on: exactly, or else but for trailing white space.
std::optional<std::size_t> find_lines(const std::vector<std::string>& lines,
                                      const std::vector<std::string>& wanted, std::size_t from,
                                      bool at_end) {
  if (wanted.size() > lines.size()) return {};
  const std::size_t last = lines.size() - wanted.size();
  for (const bool exact : {true, false}) {
    for (std::size_t at = at_end ? std::max(from, last) : from; at <= last; ++at) {
      const bool same = std::equal(
          wanted.begin(), wanted.end(), lines.begin() + static_cast<long>(at),
          [&](const std::string& a, const std::string& b) {
            return exact ? a == b : without_trailing_space(a) == without_trailing_space(b);
          });
      if (same) return at;
    }
  }
  return {};
}

struct Change {
  std::string path;
  std::optional<std::string> old_content;  // nothing: must not exist
  std::optional<std::string> new_content;  // nothing: removed
};

Result<std::vector<Change>> plan(const Root& root, const std::vector<FilePatch>& patches) {
  std::vector<Change> changes;
  for (const FilePatch& patch : patches) {
    if (patch.action == FilePatch::Action::kAdd) {
      if (load(root, patch.path)) {
        return fail(ErrorKind::kInvalidInput, "{} exists already", escape_line(patch.path));
      }
      TRY(root.relative(patch.path));
      changes.push_back({patch.path, std::nullopt, patch.content});
      continue;
    }
    std::string content = TRY(load(root, patch.path));
    if (patch.action == FilePatch::Action::kDelete) {
      changes.push_back({patch.path, std::move(content), std::nullopt});
      continue;
    }
    std::string updated = TRY_CONTEXT(apply_hunks(content, patch), "{}", escape_line(patch.path));
    if (patch.move_to && *patch.move_to != patch.path) {
      changes.push_back({*patch.move_to, std::nullopt, std::move(updated)});
      changes.push_back({patch.path, std::move(content), std::nullopt});
    } else {
      changes.push_back({patch.path, std::move(content), std::move(updated)});
    }
  }
  return changes;
}

Result<ToolResult> apply_envelope(const Root& root, const std::string& text) {
  const std::vector<FilePatch> patches = TRY(parse_patch(text));
  const std::vector<Change> changes = TRY(plan(root, patches));
  std::string done;
  for (const Change& change : changes) {
    const Expected expected = change.old_content
                                  ? Expected{Expected::State::kContent, *change.old_content}
                                  : Expected{Expected::State::kAbsent, ""};
    const Status status = change.new_content
                              ? store(root, change.path, *change.new_content, expected)
                              : remove(root, change.path, expected);
    if (!status) {
      auto error = status.error();
      if (done.empty()) return tl::unexpected(error);
      return fail("{}; before that, these were changed:\n{}", error.message(), done);
    }
    const char mark = !change.new_content ? 'D' : change.old_content ? 'M' : 'A';
    done += fmt::format("{} {}\n", mark, change.path);
  }
  return ToolResult{done};
}

Result<ToolResult> apply_unified(const Root& root, const std::string& text) {
  const Fd directory = TRY(root.open_directory("."));
  process::SpawnSpec spec;
  spec.argv = {"git", "apply", "--verbose", "--whitespace=nowarn", "-"};
  spec.environment = helper_environment();
  // The paths are relative to the workspace, not to some repository around it.
  spec.environment["GIT_CEILING_DIRECTORIES"] =
      std::filesystem::path(root.path()).parent_path().string();
  spec.cwd_fd = directory.get();
  const process::Captured applied = TRY(process::run_captured(spec, text));
  if (!applied.status.success()) {
    return fail(ErrorKind::kInvalidInput, "the patch does not apply:\n{}",
                limit_output(escape_control(applied.err)));
  }
  return ToolResult{limit_output(escape_control(applied.err))};
}

}  // namespace

Result<std::vector<FilePatch>> parse_patch(std::string_view text) {
  return PatchParser(text).parse();
}

Result<std::string> apply_hunks(std::string_view content, const FilePatch& patch) {
  std::vector<std::string> lines = split_lines(content);
  const bool ends_in_newline = content.empty() || content.ends_with('\n');
  std::size_t from = 0;
  for (std::size_t i = 0; i < patch.hunks.size(); ++i) {
    const PatchHunk& hunk = patch.hunks[i];
    if (!hunk.anchor.empty()) {
      const auto anchor =
          std::find_if(lines.begin() + static_cast<long>(from), lines.end(),
                       [&](const std::string& line) { return trim(line) == hunk.anchor; });
      if (anchor == lines.end()) {
        return fail(ErrorKind::kInvalidInput, "change {}: no line is \"{}\"", i + 1,
                    escape_line(hunk.anchor));
      }
      from = static_cast<std::size_t>(anchor - lines.begin()) + 1;
    }
    // A change that only adds, without context, goes behind its anchor, or to the end.
    const auto at = hunk.before.empty() ? std::optional(hunk.anchor.empty() ? lines.size() : from)
                                        : find_lines(lines, hunk.before, from, hunk.at_end);
    if (!at) {
      return fail(ErrorKind::kInvalidInput, "change {} does not match; it expects:\n{}", i + 1,
                  escape_control(join(hunk.before, "\n")));
    }
    const auto first = lines.begin() + static_cast<long>(*at);
    const auto next = lines.erase(first, first + static_cast<long>(hunk.before.size()));
    lines.insert(next, hunk.after.begin(), hunk.after.end());
    from = *at + hunk.after.size();
  }
  std::string out = join(lines, "\n");
  if (ends_in_newline && !lines.empty()) out += '\n';
  return out;
}

Result<ToolResult> apply_patch_tool(const Root& root, const std::string& text) {
  if (trim(text).starts_with(kBegin)) return apply_envelope(root, text);
  return apply_unified(root, text);
}

}  // namespace agent_vm::workspace

#include "workspace/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <vector>

#include "base/text.h"

namespace agent_vm::workspace {
namespace {

constexpr std::size_t kMaxLineBytes = 2000;

Result<std::string> read_all(const Fd& fd, const std::string& name) {
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail_errno(errno, "cannot read {}", escape_line(name));
  if (S_ISDIR(info.st_mode)) {
    return fail(ErrorKind::kInvalidInput, "{} is a directory", escape_line(name));
  }
  if (!S_ISREG(info.st_mode)) {
    return fail(ErrorKind::kInvalidInput, "{} is not a regular file", escape_line(name));
  }
  std::string content;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "cannot read {}", escape_line(name));
    if (got == 0) return content;
    content.append(buffer.data(), static_cast<std::size_t>(got));
    if (content.size() > kMaxFileBytes) {
      return fail(ErrorKind::kInvalidInput, "{} is larger than {}; use exec or grep for it",
                  escape_line(name), format_size(kMaxFileBytes));
    }
  }
}

Status write_all(const Fd& fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t put = ::write(fd.get(), content.data(), content.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno(errno, "cannot write");
    content.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

// The file at `place`, not through a link: place() has followed those.
Result<std::string> load_at(const Root::Place& place) {
  const Fd fd(::openat(place.directory.get(), place.name.c_str(),
                       O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) {
    const int error = errno;
    return fail(error == ENOENT ? ErrorKind::kNotFound : ErrorKind::kFailed, "cannot open {}: {}",
                escape_line(place.name), errno_text(error));
  }
  return read_all(fd, place.name);
}

Status check_expected(const Root::Place& place, const Expected& expected) {
  if (expected.state == Expected::State::kAnything) return {};
  const auto current = load_at(place);
  if (expected.state == Expected::State::kAbsent) {
    if (!current && current.error().kind() == ErrorKind::kNotFound) return {};
    return fail(ErrorKind::kInvalidInput, "{} exists already", escape_line(place.name));
  }
  if (current && *current == expected.content) return {};
  return fail("{} changed in the meantime and was left as it is: read it again",
              escape_line(place.name));
}

Result<std::string> temporary_name(const std::string& name) {
  std::array<std::uint8_t, 8> random{};
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
    return fail_errno(errno, "no randomness");
  }
  return fmt::format(".{}.{}.tmp", name.substr(0, 200), to_hex(random));
}

// Removes the temporary file unless it was renamed.
class Temporary {
 public:
  Temporary(int directory, std::string name) : directory_(directory), name_(std::move(name)) {}
  ~Temporary() {
    if (!name_.empty()) ::unlinkat(directory_, name_.c_str(), 0);
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  const char* name() const { return name_.c_str(); }
  void keep() { name_.clear(); }

 private:
  int directory_;
  std::string name_;
};

std::string list_directory(const Fd& fd) {
  std::vector<std::string> names;
  DIR* stream = ::fdopendir(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (stream == nullptr) return {};
  const std::unique_ptr<DIR, int (*)(DIR*)> close(stream, &::closedir);
  while (const dirent* entry = ::readdir(stream)) {  // NOLINT(concurrency-mt-unsafe)
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name + (entry->d_type == DT_DIR ? "/" : ""));
  }
  std::sort(names.begin(), names.end());
  return join(names, "\n");
}

std::size_t count_occurrences(std::string_view text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos;
       at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

}  // namespace

Result<std::string> load(const Root& root, const std::string& name) {
  // O_NONBLOCK: opening a pipe would otherwise wait for its writer.
  const Fd fd = TRY(root.open_file(name, O_RDONLY | O_NONBLOCK));
  return read_all(fd, name);
}

Status store(const Root& root, const std::string& name, std::string_view content,
             const Expected& expected) {
  const Root::Place place = TRY(root.place(name, true));
  const int directory = place.directory.get();
  struct stat before {};
  const bool exists = ::fstatat(directory, place.name.c_str(), &before, AT_SYMLINK_NOFOLLOW) == 0;
  if (exists && !S_ISREG(before.st_mode)) {
    return fail(ErrorKind::kInvalidInput, "{} is not a regular file", escape_line(name));
  }
  if (exists && ::faccessat(directory, place.name.c_str(), W_OK, 0) != 0) {
    return fail_errno(errno, "{} cannot be written", escape_line(name));
  }

  const std::string temporary_file = TRY(temporary_name(place.name));
  const Fd fd(::openat(directory, temporary_file.c_str(),
                       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!fd) return fail_errno(errno, "cannot write beside {}", escape_line(name));
  Temporary temporary(directory, temporary_file);
  TRY_CONTEXT(write_all(fd, content), "writing {}", escape_line(name));
  if (exists && ::fchmod(fd.get(), before.st_mode & 07777) != 0) {
    return fail_errno(errno, "cannot keep the mode of {}", escape_line(name));
  }

  TRY(check_expected(place, expected));
  const unsigned flags = expected.state == Expected::State::kAbsent ? RENAME_NOREPLACE : 0;
  if (::renameat2(directory, temporary.name(), directory, place.name.c_str(), flags) != 0) {
    return fail_errno(errno, "cannot replace {}", escape_line(name));
  }
  temporary.keep();
  return {};
}

Status remove(const Root& root, const std::string& name, const Expected& expected) {
  const Root::Place place = TRY(root.place(name, false));
  TRY(check_expected(place, expected));
  if (::unlinkat(place.directory.get(), place.name.c_str(), 0) != 0) {
    return fail_errno(errno, "cannot remove {}", escape_line(name));
  }
  return {};
}

Result<ToolResult> read_tool(const Root& root, const std::string& name, std::uint64_t offset,
                             std::uint64_t limit) {
  if (const auto directory = root.open_directory(name)) {
    return ToolResult{limit_output(list_directory(*directory))};
  }
  const std::string content = TRY(load(root, name));
  if (content.empty()) return ToolResult{"[the file is empty]"};
  if (std::string_view(content).substr(0, 8192).find('\0') != std::string_view::npos) {
    return ToolResult{
        fmt::format("[a binary file of {} bytes; use exec to look into it]", content.size())};
  }
  const std::vector<std::string> lines = split_lines(content);
  if (offset > lines.size()) {
    return fail(ErrorKind::kInvalidInput, "{} has {} lines; offset {} is behind its end",
                escape_line(name), lines.size(), offset);
  }
  std::string text;
  const std::uint64_t end = std::min<std::uint64_t>(lines.size(), offset - 1 + limit);
  std::uint64_t line = offset - 1;
  for (; line < end && text.size() < kMaxOutputBytes - kMaxLineBytes; ++line) {
    const std::string& full = lines[line];
    text += fmt::format("{:>6}\t{}", line + 1, full.substr(0, kMaxLineBytes));
    if (full.size() > kMaxLineBytes) {
      text += fmt::format(" [... {} more bytes in this line]", full.size() - kMaxLineBytes);
    }
    text += '\n';
  }
  if (line < lines.size()) {
    text += fmt::format("[lines {} to {} of {}; read on with offset {}]\n", offset, line,
                        lines.size(), line + 1);
  }
  return ToolResult{std::move(text)};
}

Result<ToolResult> write_tool(const Root& root, const std::string& name, std::string_view content) {
  TRY(store(root, name, content, {}));
  return ToolResult{fmt::format("Wrote {} bytes to {}.", content.size(), name)};
}

Result<ToolResult> edit_tool(const Root& root, const std::string& name, std::string_view old_text,
                             std::string_view new_text, bool all) {
  if (old_text.empty()) {
    return fail(ErrorKind::kInvalidInput, "old_text is empty; use write to make a new file");
  }
  if (old_text == new_text) {
    return fail(ErrorKind::kInvalidInput, "old_text and new_text are the same");
  }
  const std::string content = TRY(load(root, name));
  const std::size_t count = count_occurrences(content, old_text);
  if (count == 0) {
    return fail(ErrorKind::kInvalidInput,
                "old_text does not occur in {}; it must match byte for byte, white space included",
                escape_line(name));
  }
  if (count > 1 && !all) {
    return fail(ErrorKind::kInvalidInput,
                "old_text occurs {} times in {}; add lines around it until it is unique, or set "
                "replace_all",
                count, escape_line(name));
  }
  std::string changed;
  changed.reserve(content.size());
  std::size_t from = 0;
  for (std::size_t at = content.find(old_text); at != std::string::npos;
       at = content.find(old_text, from)) {
    changed.append(content, from, at - from).append(new_text);
    from = at + old_text.size();
  }
  changed.append(content, from);
  TRY(store(root, name, changed, {Expected::State::kContent, content}));
  return ToolResult{
      fmt::format("Replaced {} occurrence{} in {}.", count, count == 1 ? "" : "s", name)};
}

}  // namespace agent_vm::workspace

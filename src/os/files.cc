#include "os/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "base/text.h"
#include "os/random.h"

namespace agent_vm {
namespace {

using DirStream = std::unique_ptr<DIR, decltype([](DIR* d) { ::closedir(d); })>;

Result<DirStream> open_stream(int dir) {
  // A fresh description: readdir must not share its position with the caller's.
  Fd fd(::openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot list a directory");
  DirStream stream(::fdopendir(fd.get()));
  if (!stream) return fail_errno(errno, "cannot list a directory");
  static_cast<void>(fd.release());
  return stream;
}

Result<std::string> temporary_name(const std::string& name) {
  return fmt::format(".{}.{}.tmp", name, TRY(random_hex(8)));
}

// A directory of `dir`, on the same file system: what tree walks go down into.
Result<Fd> open_directory_here(int dir, const std::string& name) {
  struct open_how how {};
  how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  Fd fd(static_cast<int>(::syscall(SYS_openat2, dir, name.c_str(), &how, sizeof how)));
  if (!fd) return fail_errno(errno, "cannot open the directory {}", escape_line(name));
  return fd;
}

Status sync_directory(int dir) {
  if (::fsync(dir) != 0) return fail_errno(errno, "cannot sync a directory");
  return {};
}

}  // namespace

Result<Fd> open_directory(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open the directory {}", escape_line(path));
  return fd;
}

Result<Fd> open_beneath(int dir, const std::string& path, int flags, mode_t mode) {
  struct open_how how {};
  how.flags = static_cast<std::uint64_t>(flags) | O_CLOEXEC;
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  long fd = -1;
  do {
    fd = ::syscall(SYS_openat2, dir, path.c_str(), &how, sizeof how);
  } while (fd < 0 && (errno == EINTR || errno == EAGAIN));
  if (fd < 0) {
    const int error = errno;
    if (error == ELOOP)
      return fail("refusing {}: it is, or leads through, a link", escape_line(path));
    auto failure = fail_errno(error, "cannot open {}", escape_line(path));
    if (error == ENOENT) {
      return tl::unexpected(std::move(failure).value().with_kind(ErrorKind::kNotFound));
    }
    return failure;
  }
  return Fd(static_cast<int>(fd));
}

Result<Fd> open_private_directory(const std::string& path) {
  // Parents first; each is made private, an existing one is the system's business.
  for (std::size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
    if (::mkdir(path.substr(0, at).c_str(), 0700) != 0 && errno != EEXIST && errno != EROFS &&
        errno != EACCES) {
      return fail_errno(errno, "cannot make the directory {}", escape_line(path.substr(0, at)));
    }
  }
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "cannot make the directory {}", escape_line(path));
  }
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) {
    const int error = errno;
    struct stat link {};
    if ((error == ENOTDIR || error == ELOOP) && ::lstat(path.c_str(), &link) == 0 &&
        S_ISLNK(link.st_mode)) {
      return fail(ErrorKind::kInvalidInput,
                  "refusing the directory {}: it is a symbolic link; name its target instead",
                  escape_line(path));
    }
    return fail_errno(error, "cannot open the directory {}", escape_line(path));
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0)
    return fail_errno(errno, "cannot examine {}", escape_line(path));
  if (info.st_uid != ::geteuid()) {
    return fail(ErrorKind::kInvalidInput,
                "refusing the directory {}: user {} owns it, and you are user {}",
                escape_line(path), info.st_uid, ::geteuid());
  }
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fail(ErrorKind::kInvalidInput,
                "refusing the directory {}: others can write to it (mode {:o}); run: chmod go-w {}",
                escape_line(path), info.st_mode & 07777U, shell_quote(path));
  }
  return fd;
}

Result<std::string> read_all(int fd, std::size_t max_bytes) {
  std::string content;
  std::array<char, 65536> buffer{};
  while (true) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "cannot read");
    if (got == 0) return content;
    content.append(buffer.data(), static_cast<std::size_t>(got));
    if (content.size() > max_bytes) return fail("larger than {} bytes", max_bytes);
  }
}

Result<std::string> read_file_at(int dir, const std::string& path, std::size_t max_bytes) {
  const Fd fd = TRY(open_beneath(dir, path, O_RDONLY | O_NOCTTY | O_NONBLOCK));
  return TRY_CONTEXT(read_all(fd.get(), max_bytes), "cannot read {}", escape_line(path));
}

Result<std::string> read_file(const std::string& path, std::size_t max_bytes) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return fail_errno(errno, "cannot open {}", escape_line(path));
  return TRY_CONTEXT(read_all(fd.get(), max_bytes), "cannot read {}", escape_line(path));
}

Status write_all(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t put = ::write(fd, content.data(), content.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno(errno, "cannot write");
    content.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

Status write_file_atomic(int dir, const std::string& name, std::string_view content, mode_t mode) {
  const std::string temporary = TRY(temporary_name(name));
  const auto write = [&]() -> Status {
    const Fd fd = TRY(open_beneath(dir, temporary, O_WRONLY | O_CREAT | O_EXCL, mode));
    // The mode asked for, whatever the umask is.
    if (::fchmod(fd.get(), mode) != 0) return fail_errno(errno, "cannot set the mode");
    TRY(write_all(fd.get(), content));
    if (::fsync(fd.get()) != 0) return fail_errno(errno, "cannot sync");
    if (::renameat(dir, temporary.c_str(), dir, name.c_str()) != 0) {
      return fail_errno(errno, "cannot rename");
    }
    return sync_directory(dir);
  };
  auto written = write();
  if (!written) {
    static_cast<void>(::unlinkat(dir, temporary.c_str(), 0));
    return tl::unexpected(
        std::move(written).error().within(fmt::format("cannot write {}", escape_line(name))));
  }
  return {};
}

namespace {

// Copies some of the bytes from `at` on, to where they are. Returns how many; 0: there are no more.
Result<off_t> copy_some(int from, int to, off_t at, off_t most) {
  off_t into = at;
  off_t position = at;
  const ssize_t copied =
      ::copy_file_range(from, &position, to, &into, static_cast<std::size_t>(most), 0);
  if (copied >= 0) return copied;
  if (errno == EINTR) return copy_some(from, to, at, most);
  // Not between every two file systems.
  if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
    return fail_errno(errno, "cannot copy a file");
  std::array<char, 65536> bytes{};
  const auto size = std::min<std::size_t>(bytes.size(), static_cast<std::size_t>(most));
  const ssize_t got = ::pread(from, bytes.data(), size, at);
  if (got < 0) return fail_errno(errno, "cannot copy a file");
  const ssize_t put = ::pwrite(to, bytes.data(), static_cast<std::size_t>(got), at);
  if (put < 0) return fail_errno(errno, "cannot copy a file");
  return put;
}

}  // namespace

Status copy_file(int from, int to) {
  if (::ioctl(to, FICLONE, from) == 0) return {};
  struct stat status {};
  if (::fstat(from, &status) != 0 || ::ftruncate(to, status.st_size) != 0)
    return fail_errno(errno, "cannot copy a file");
  off_t at = ::lseek(from, 0, SEEK_DATA);
  while (at >= 0 && at < status.st_size) {
    off_t end = ::lseek(from, at, SEEK_HOLE);
    if (end < 0) end = status.st_size;
    while (at < end) {
      const off_t copied = TRY(copy_some(from, to, at, end - at));
      if (copied == 0) return {};  // it is shorter than it was
      at += copied;
    }
    at = ::lseek(from, at, SEEK_DATA);
  }
  // ENXIO: no data from there to the end.
  if (at < 0 && errno != ENXIO) return fail_errno(errno, "cannot copy a file");
  return {};
}

Result<Fd> reopen(int fd, int flags) {
  Fd own(::open(proc_fd_path(fd).c_str(), flags | O_CLOEXEC));
  if (!own) return fail_errno(errno, "cannot open a file again");
  return own;
}

Status make_directory_at(int dir, const std::string& name, mode_t mode) {
  if (::mkdirat(dir, name.c_str(), mode) == 0) return {};
  const int error = errno;
  if (error == EEXIST) {
    static_cast<void>(TRY(open_beneath(dir, name, O_PATH | O_DIRECTORY)));
    return {};
  }
  return fail_errno(error, "cannot make the directory {}", escape_line(name));
}

namespace {

// Each level of a walk holds a descriptor and a stack frame, and a guest can nest directories as
// deep as it likes. What lies deeper than this is first moved up, next to the tree that is being
// removed.
constexpr int kMaxRemoveDepth = 100;

Status remove_limited(int root, const std::string& root_name, int dir, const std::string& name,
                      int depth, std::vector<std::string>& moved_up) {
  if (::unlinkat(dir, name.c_str(), 0) == 0 || errno == ENOENT) return {};
  if (errno != EISDIR && errno != EPERM) {
    return fail_errno(errno, "cannot remove {}", escape_line(name));
  }
  if (depth == kMaxRemoveDepth) {
    const std::string above = TRY(temporary_name(root_name)).substr(1);
    if (::renameat(dir, name.c_str(), root, above.c_str()) != 0) {
      return fail_errno(errno, "cannot remove {}", escape_line(name));
    }
    moved_up.push_back(above);
    return {};
  }
  {
    const Fd below = TRY_CONTEXT(open_directory_here(dir, name), "cannot remove it");
    for (const auto& entry : TRY(list_directory(below.get()))) {
      TRY(remove_limited(root, root_name, below.get(), entry, depth + 1, moved_up));
    }
  }
  if (::unlinkat(dir, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
    return fail_errno(errno, "cannot remove {}", escape_line(name));
  }
  return {};
}

}  // namespace

Status remove_tree_at(int dir, const std::string& name) {
  std::vector<std::string> left{name};
  while (!left.empty()) {
    const std::string next = left.back();
    left.pop_back();
    TRY(remove_limited(dir, name, dir, next, 0, left));
  }
  return {};
}

Status change_owner_at(int dir, const std::string& name, uid_t uid, gid_t gid) {
  struct stat info {};
  if (::fchownat(dir, name.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW) != 0 ||
      ::fstatat(dir, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return fail_errno(errno, "cannot change the owner of {}", escape_line(name));
  }
  if (!S_ISDIR(info.st_mode)) return {};
  const Fd below = TRY(open_directory_here(dir, name));
  for (const auto& entry : TRY(list_directory(below.get()))) {
    TRY(change_owner_at(below.get(), entry, uid, gid));
  }
  return {};
}

Result<std::uint64_t> tree_size_at(int dir, const std::string& name) {
  struct stat info {};
  if (::fstatat(dir, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return 0;
    return fail_errno(errno, "cannot examine {}", escape_line(name));
  }
  auto bytes = static_cast<std::uint64_t>(info.st_blocks) * 512;
  if (!S_ISDIR(info.st_mode)) return bytes;
  // The guest may be removing files while we count: what has gone is not an error.
  const auto below = open_beneath(dir, name, O_RDONLY | O_DIRECTORY);
  if (!below) return bytes;
  for (const auto& entry : TRY(list_directory(below->get()))) {
    if (const auto size = tree_size_at(below->get(), entry)) bytes += *size;
  }
  return bytes;
}

Result<std::vector<std::string>> list_directory(int dir) {
  const DirStream stream = TRY(open_stream(dir));
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream.get())) {  // NOLINT(concurrency-mt-unsafe)
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) return fail_errno(errno, "cannot list a directory");
  std::ranges::sort(names);
  return names;
}

bool exists_at(int dir, const std::string& name) {
  struct stat info {};
  return ::fstatat(dir, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
}

std::string proc_fd_path(int fd, std::string_view name) {
  return name.empty() ? fmt::format("/proc/self/fd/{}", fd)
                      : fmt::format("/proc/self/fd/{}/{}", fd, name);
}

}  // namespace agent_vm

#include "workspace/root.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>

#include "base/text.h"

namespace agent_vm::workspace {
namespace {

constexpr int kMaxLinks = 16;

std::string directory_of(const std::string& name) {
  const std::size_t slash = name.rfind('/');
  return slash == std::string::npos ? "." : name.substr(0, slash);
}

std::string last_part(const std::string& name) {
  return name.substr(name.rfind('/') + 1);
}

}  // namespace

Result<Root> Root::open(const std::string& path) {
  Root root;
  root.path_ = path;
  while (root.path_.size() > 1 && root.path_.ends_with('/')) root.path_.pop_back();
  root.fd_ = Fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.fd_) return fail_errno(errno, "cannot open the workspace {}", path);
  return root;
}

Result<std::string> Root::relative(const std::string& name) const {
  if (name.find('\0') != std::string::npos) {
    return fail(ErrorKind::kInvalidInput, "the path {} contains a NUL byte", escape_line(name));
  }
  if (name.size() >= PATH_MAX) return fail(ErrorKind::kInvalidInput, "the path is too long");
  if (name.empty() || name == path_) return std::string(".");
  if (name.starts_with(path_ + "/")) {
    std::string rest = name.substr(path_.size() + 1);
    while (rest.starts_with('/')) rest.erase(0, 1);
    return rest.empty() ? "." : rest;
  }
  if (name.starts_with('/')) {
    return fail(ErrorKind::kInvalidInput, "{} is outside the workspace {}", escape_line(name),
                path_);
  }
  return name;
}

Result<Fd> Root::open_beneath(const std::string& relative_name, int flags) const {
  open_how how{};
  how.flags = static_cast<unsigned long long>(flags) | O_CLOEXEC;
  if ((flags & O_CREAT) != 0) how.mode = 0666;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  // EAGAIN: something was renamed while the kernel walked; it asks to be called again.
  for (int attempt = 0; attempt < 32; ++attempt) {
    const long fd = ::syscall(SYS_openat2, fd_.get(), relative_name.c_str(), &how, sizeof(how));
    if (fd >= 0) return Fd(static_cast<int>(fd));
    if (errno != EAGAIN && errno != EINTR) break;
  }
  const int error = errno;
  if (error == EXDEV) {
    return fail(ErrorKind::kInvalidInput, "{} leads out of the workspace {}",
                escape_line(relative_name), path_);
  }
  const ErrorKind kind = error == ENOENT ? ErrorKind::kNotFound : ErrorKind::kFailed;
  return fail(kind, "cannot open {}: {}", escape_line(relative_name), errno_text(error));
}

Result<Fd> Root::open_file(const std::string& name, int flags) const {
  const std::string relative_name = TRY(relative(name));
  return open_beneath(relative_name, flags);
}

Result<Fd> Root::open_directory(const std::string& name) const {
  return open_file(name, O_RDONLY | O_DIRECTORY);
}

Status Root::make_directories(const std::string& relative_name) const {
  std::string done;
  for (const std::string& part : split(relative_name, '/')) {
    if (part.empty() || part == ".") continue;
    const std::string parent = done.empty() ? "." : done;
    done = done.empty() ? part : done + "/" + part;
    if (part == "..") continue;
    if (const auto there = open_beneath(done, O_PATH | O_DIRECTORY)) continue;
    const Fd directory = TRY(open_beneath(parent, O_PATH | O_DIRECTORY));
    if (::mkdirat(directory.get(), part.c_str(), 0777) != 0 && errno != EEXIST) {
      return fail_errno(errno, "cannot make the directory {}", escape_line(done));
    }
  }
  return {};
}

Result<Root::Place> Root::place(const std::string& name, bool create_directories) const {
  std::string current = TRY(relative(name));
  for (int links = 0; links < kMaxLinks; ++links) {
    const std::string base = last_part(current);
    if (base.empty() || base == "." || base == "..") {
      return fail(ErrorKind::kInvalidInput, "{} does not name a file", escape_line(name));
    }
    const std::string parent = directory_of(current);
    if (create_directories) TRY(make_directories(parent));
    Fd directory = TRY(open_beneath(parent, O_PATH | O_DIRECTORY));
    std::array<char, PATH_MAX> target;
    const ssize_t size = ::readlinkat(directory.get(), base.c_str(), target.data(), target.size());
    if (size < 0) return Place{std::move(directory), base};
    const std::string link(target.data(), static_cast<std::size_t>(size));
    if (link.starts_with('/')) {
      return fail(ErrorKind::kInvalidInput, "{} is a link that leads out of the workspace {}",
                  escape_line(name), path_);
    }
    current = parent == "." ? link : parent + "/" + link;
  }
  return fail(ErrorKind::kInvalidInput, "{} goes through too many links", escape_line(name));
}

}  // namespace agent_vm::workspace

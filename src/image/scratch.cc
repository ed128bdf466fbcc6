#include "image/scratch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/log.h"
#include "os/files.h"
#include "os/run.h"

namespace agent_vm {
namespace {

constexpr std::string_view kPrefix = "agent-vm-image-";

std::string base_folder() {
  const char* tmpdir = std::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe): single-threaded
  // Not /tmp: it is in memory on many machines, and a build needs some gigabytes.
  return tmpdir != nullptr && *tmpdir == '/' ? tmpdir : "/var/tmp";
}

Status remove_folder(const std::string& base, const std::string& name) {
  const Fd dir = TRY(open_directory(base));
  const auto removed = remove_tree_at(dir.get(), name);
  if (removed || ::geteuid() == 0) return removed;
  // Files of subordinate ids: only those ids, or root of a namespace that holds them, can. The
  // folder in which they are is ours.
  Command command;
  command.argv = {"mmdebstrap", "--unshare-helper", "find", base + "/" + name + "/tmp",
                  "-xdev",      "-mindepth",        "2",    "-delete"};
  static_cast<void>(run(command));
  return remove_tree_at(dir.get(), name);
}

// A lock says that a build is using a folder; it goes away with the build, whatever ended it.
Fd lock_folder(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) fd.reset();
  return fd;
}

void remove_leftovers(const std::string& base) {
  const auto dir = open_directory(base);
  if (!dir) return;
  const auto names = list_directory(dir->get());
  if (!names) return;
  for (const auto& name : *names) {
    if (!name.starts_with(kPrefix)) continue;
    const std::string path = base + "/" + name;
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0 || status.st_uid != ::geteuid()) continue;
    if (!lock_folder(path)) continue;
    log::info("removing {}, which a build that was killed left behind", path);
    if (const auto removed = remove_folder(base, name); !removed) {
      log::warn("cannot remove {}: {}", path, removed.error().message());
    }
  }
}

}  // namespace

Result<Scratch> Scratch::make() {
  const std::string base = base_folder();
  remove_leftovers(base);
  std::string path = fmt::format("{}/{}XXXXXX", base, kPrefix);
  if (::mkdtemp(path.data()) == nullptr) {
    return fail_errno(errno, "cannot make a folder for the build in {}", base);
  }
  Fd lock = lock_folder(path);
  Scratch scratch(path, std::move(lock));
  // Subordinate ids must get through, and read what is meant for them.
  if (::chmod(path.c_str(), 0711) != 0) return fail_errno(errno, "cannot open {}", path);
  return scratch;
}

Scratch::Scratch(Scratch&& other) noexcept
    : path_(std::exchange(other.path_, {})), lock_(std::move(other.lock_)) {}

Scratch::~Scratch() {
  if (path_.empty()) return;
  const std::filesystem::path path(path_);
  if (const auto removed = remove_folder(path.parent_path(), path.filename()); !removed) {
    log::warn("cannot remove {}: {}", path_, removed.error().message());
  }
}

Result<std::string> Scratch::folder(const std::string& name) const {
  const std::string path = path_ + "/" + name;
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
    return fail_errno(errno, "cannot make {}", path);
  }
  // Whatever the umask is.
  if (::chmod(path.c_str(), 0755) != 0) return fail_errno(errno, "cannot open {}", path);
  return path;
}

}  // namespace agent_vm

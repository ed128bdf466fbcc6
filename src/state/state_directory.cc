#include "state/state_directory.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/log.h"
#include "base/text.h"
#include "config/names.h"
#include "os/files.h"
#include "os/random.h"

namespace agent_vm {
namespace {

constexpr std::string_view kTemporaryPrefix = ".create-";

// A creation that was killed leaves a directory that nobody has locked any more.
void remove_leftovers(int state) {
  // With this lock nobody is between making such a directory and locking it. Who cannot have it at
  // once leaves the work to the next command.
  const auto guard = DirectoryLock::try_acquire(state);
  if (!guard || !*guard) return;
  const auto entries = list_directory(state);
  if (!entries) return;
  for (const auto& entry : *entries) {
    if (!entry.starts_with(kTemporaryPrefix)) continue;
    const auto dir = open_beneath(state, entry, O_RDONLY | O_DIRECTORY);
    if (!dir) continue;
    const auto lock = DirectoryLock::try_acquire(dir->get());
    if (!lock || !*lock) continue;
    log::info("removing what a killed creation left: {}", entry);
    static_cast<void>(remove_tree_at(state, entry));
  }
}

std::string absolute(const std::string& path) {
  std::error_code error;
  auto result = std::filesystem::absolute(path, error).lexically_normal().string();
  while (result.size() > 1 && result.ends_with('/')) result.pop_back();
  return error ? path : result;
}

}  // namespace

Result<std::string> StateDirectory::default_path() {
  // NOLINTBEGIN(concurrency-mt-unsafe): single-threaded, and read before anything else runs.
  const char* data = std::getenv("XDG_DATA_HOME");
  if (data != nullptr && data[0] == '/') return std::string(data) + "/agent-vms";
  const char* home = std::getenv("HOME");
  // NOLINTEND(concurrency-mt-unsafe)
  if (home == nullptr || home[0] != '/') {
    return fail(ErrorKind::kInvalidInput,
                "HOME is not set, so there is no place for VMs; name one with --state-dir");
  }
  return std::string(home) + "/.local/share/agent-vms";
}

Result<StateDirectory> StateDirectory::open_or_make(const std::string& path) {
  const std::string whole = absolute(path);
  Fd fd = TRY_CONTEXT(open_private_directory(whole), "the state directory");
  if (::faccessat(fd.get(), ".", W_OK | X_OK, AT_EACCESS) != 0) {
    return fail(ErrorKind::kInvalidInput, "the state directory {} is not writable: {}",
                escape_line(whole), errno_text(errno));
  }
  remove_leftovers(fd.get());
  return StateDirectory(std::move(fd), whole);
}

Result<StateDirectory> StateDirectory::open(const std::string& path) {
  const std::string whole = absolute(path);
  struct stat info {};
  if (::lstat(whole.c_str(), &info) != 0 && errno == ENOENT) {
    return fail(ErrorKind::kNotFound, "there are no VMs: the state directory {} does not exist",
                escape_line(whole));
  }
  Fd fd = TRY_CONTEXT(open_private_directory(whole), "the state directory");
  return StateDirectory(std::move(fd), whole);
}

Result<std::vector<std::string>> StateDirectory::names() const {
  std::vector<std::string> names = TRY(list_directory(fd_.get()));
  std::erase_if(names, [&](const std::string& name) {
    struct stat info {};
    return !valid_vm_name(name) ||
           ::fstatat(fd_.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 ||
           !S_ISDIR(info.st_mode);
  });
  return names;
}

Result<VmDirectory> StateDirectory::vm(const std::string& name) const {
  return VmDirectory::open(fd_.get(), path_, name);
}

Result<DirectoryLock> StateDirectory::lock(const Deadline& deadline) const {
  return DirectoryLock::acquire(fd_.get(), deadline);
}

tl::unexpected<Error> already_exists(const std::string& name) {
  return tl::unexpected(
      Error(ErrorKind::kInvalidInput, "VM configuration already exists")
          .with_hint(
              fmt::format("start it with: agent-vm start {}; or choose another --name", name)));
}

Result<NewVmDirectory> NewVmDirectory::make(const StateDirectory& state) {
  const std::string name = fmt::format("{}{}", kTemporaryPrefix, TRY(random_hex(8)));
  // Between mkdir and lock another command may take it for a leftover; it cannot while it waits for
  // this lock or fails to get it.
  const auto guard = DirectoryLock::acquire(state.fd(), Deadline::never());
  if (!guard) return tl::unexpected(guard.error());
  if (::mkdirat(state.fd(), name.c_str(), 0700) != 0) {
    return fail_errno(errno, "cannot make a directory in {}", escape_line(state.path()));
  }
  Fd fd = TRY(open_beneath(state.fd(), name, O_RDONLY | O_DIRECTORY));
  DirectoryLock lock = TRY(DirectoryLock::acquire(fd.get(), Deadline::in({})));
  Fd own_state(::fcntl(state.fd(), F_DUPFD_CLOEXEC, 0));
  if (!own_state) return fail_errno(errno, "cannot keep the state directory open");
  return NewVmDirectory(std::move(own_state), std::move(fd), std::move(lock), name,
                        state.path() + "/" + name);
}

NewVmDirectory::~NewVmDirectory() {
  if (!state_ || temporary_.empty()) return;
  if (const auto removed = remove_tree_at(state_.get(), temporary_); !removed) {
    log::warn("cannot clean up {}: {}", path_, removed.error().message());
  }
}

Status NewVmDirectory::commit(const std::string& name) {
  TRY(valid_vm_name(name));
  if (::fsync(fd_.get()) != 0) return fail_errno(errno, "cannot sync {}", path_);
  if (::renameat2(state_.get(), temporary_.c_str(), state_.get(), name.c_str(), RENAME_NOREPLACE) !=
      0) {
    if (errno == EEXIST || errno == ENOTEMPTY) return already_exists(name);
    return fail_errno(errno, "cannot give the new VM its name '{}'", name);
  }
  temporary_.clear();
  if (::fsync(state_.get()) != 0) return fail_errno(errno, "cannot sync the state directory");
  return {};
}

}  // namespace agent_vm

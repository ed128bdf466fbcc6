#include "state/vm_directory.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "base/log.h"
#include "base/text.h"
#include "config/names.h"
#include "os/files.h"

namespace agent_vm {
namespace {

constexpr std::size_t kMaxRecord = 1U << 20U;

struct Record {
  std::string text;
  struct stat info;  // which file it was read from
};

Result<Record> read_record(int dir, const char* name) {
  const Fd fd = TRY(open_beneath(dir, name, O_RDONLY | O_NONBLOCK));
  Record record;
  if (::fstat(fd.get(), &record.info) != 0) return fail_errno(errno, "cannot examine {}", name);
  record.text = TRY_CONTEXT(read_all(fd.get(), kMaxRecord), "cannot read {}", name);
  return record;
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

std::string compact_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  return fmt::format("{:04}{:02}{:02}T{:02}{:02}{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

// Moves a record that could not be understood out of the way. Empty when another command has put
// a good one in its place in the meantime, or has moved it already.
Result<std::string> quarantine(int dir, const char* name, const struct stat& torn) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    const std::string kept = attempt == 0
                                 ? fmt::format("{}.corrupt-{}", name, compact_time())
                                 : fmt::format("{}.corrupt-{}-{}", name, compact_time(), attempt);
    if (::renameat2(dir, name, dir, kept.c_str(), RENAME_NOREPLACE) != 0) {
      if (errno == EEXIST) continue;
      if (errno == ENOENT) return std::string();
      return fail_errno(errno, "cannot quarantine {}", name);
    }
    struct stat moved {};
    if (::fstatat(dir, kept.c_str(), &moved, AT_SYMLINK_NOFOLLOW) == 0 && !same_file(moved, torn)) {
      // A writer replaced the torn record between our read and our rename: put the good one back.
      static_cast<void>(::renameat2(dir, kept.c_str(), dir, name, RENAME_NOREPLACE));
      return std::string();
    }
    return kept;
  }
  return fail("cannot quarantine {}: too many torn records are there already", name);
}

}  // namespace

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

Result<VmDirectory> VmDirectory::open(int state, const std::string& state_path,
                                      const std::string& name) {
  TRY(valid_vm_name(name));
  auto fd = open_beneath(state, name, O_RDONLY | O_DIRECTORY);
  if (!fd) {
    if (fd.error().kind() != ErrorKind::kNotFound) return tl::unexpected(std::move(fd).error());
    return fail(ErrorKind::kNotFound, "there is no VM '{}'", name);
  }
  Fd own_state(::fcntl(state, F_DUPFD_CLOEXEC, 0));
  if (!own_state) return fail_errno(errno, "cannot keep the state directory open");
  return VmDirectory(std::move(own_state), std::move(*fd), name, state_path + "/" + name);
}

Result<DirectoryLock> VmDirectory::lock(const Deadline& deadline) const {
  DirectoryLock lock = TRY(DirectoryLock::acquire(fd_.get(), deadline));
  struct stat ours {};
  struct stat named {};
  if (::fstat(fd_.get(), &ours) != 0) return fail_errno(errno, "cannot examine {}", path_);
  if (::fstatat(state_.get(), name_.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0 ||
      !same_file(ours, named)) {
    return fail(ErrorKind::kNotFound, "VM '{}' has just been destroyed", name_);
  }
  return lock;
}

Result<VmConfig> VmDirectory::read_config() const {
  const auto record = read_record(fd_.get(), vm_files::kConfig);
  if (!record) {
    if (record.error().kind() != ErrorKind::kNotFound) return tl::unexpected(record.error());
    return tl::unexpected(
        Error(ErrorKind::kFailed, fmt::format("VM '{}' has no configuration (no config.json in {})",
                                              name_, escape_line(path_)))
            .with_hint(
                fmt::format("if a config.json.corrupt-* is there, repair it and rename it to "
                            "config.json; or run: agent-vm destroy {}",
                            name_)));
  }
  auto config = parse_vm_config(record->text);
  if (config && config->name == name_) return config;
  // Another schema, or a value out of range, is a whole record that says something else.
  if (config || config.error().kind() == ErrorKind::kInvalidInput) {
    const std::string why = config ? fmt::format("config.json belongs to VM '{}'", config->name)
                                   : config.error().message();
    return fail(ErrorKind::kFailed, "cannot use the configuration of VM '{}': {}", name_, why);
  }
  const std::string kept = TRY(quarantine(fd_.get(), vm_files::kConfig, record->info));
  if (kept.empty()) return fail("the configuration of VM '{}' changed; try again", name_);
  return tl::unexpected(
      Error(ErrorKind::kFailed, fmt::format("the configuration of VM '{}' cannot be understood: {}",
                                            name_, config.error().message()))
          .with_hint(fmt::format("it was kept as {}/{}; repair it and rename it to config.json, or "
                                 "run: agent-vm destroy {}",
                                 escape_line(path_), kept, name_)));
}

Status VmDirectory::write_config(const VmConfig& config) const {
  TRY(validate(config));
  return write_file_atomic(fd_.get(), vm_files::kConfig, to_json_text(config), 0600);
}

Result<std::optional<RunRecord>> VmDirectory::read_run() const {
  const auto record = read_record(fd_.get(), vm_files::kRun);
  if (!record) {
    if (record.error().kind() == ErrorKind::kNotFound) return std::nullopt;
    return tl::unexpected(record.error());
  }
  auto run = parse_run_record(record->text);
  if (run) return *run;
  if (run.error().kind() == ErrorKind::kInvalidInput) {
    return tl::unexpected(std::move(run).error().within(fmt::format("VM '{}'", name_)));
  }
  const std::string kept = TRY(quarantine(fd_.get(), vm_files::kRun, record->info));
  if (!kept.empty()) {
    log::warn("VM '{}': {}; it was kept as {}/{}", name_, run.error().message(), path_, kept);
  }
  return std::nullopt;
}

Status VmDirectory::write_run(const RunRecord& record) const {
  return write_file_atomic(fd_.get(), vm_files::kRun, to_json_text(record), 0600);
}

Status VmDirectory::remove_run() const {
  if (::unlinkat(fd_.get(), vm_files::kRun, 0) != 0 && errno != ENOENT) {
    return fail_errno(errno, "cannot remove {}/{}", path_, vm_files::kRun);
  }
  return {};
}

Result<std::string> VmDirectory::read_small_file(const std::string& path) const {
  return read_file_at(fd_.get(), path, kMaxRecord);
}

}  // namespace agent_vm

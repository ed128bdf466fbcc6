#include "identity/disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>

#include "base/fd.h"
#include "base/text.h"
#include "identity/events.h"
#include "identity/program.h"

namespace agent_vm {
namespace {

// Below /run, so that no overlay covers it; only root may look into it.
constexpr const char* kDisk = "/run/agent-vm/disk";
constexpr std::array kLasting{"etc", "home", "opt", "root", "srv", "usr", "var"};

Status make_directory(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST)
    return fail_errno(errno, "cannot make {}", path);
  return {};
}

std::string read_line(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 64> text{};
  const ssize_t got = fd ? ::read(fd.get(), text.data(), text.size()) : 0;
  return std::string(
      trim(std::string_view(text.data(), got > 0 ? static_cast<std::size_t>(got) : 0)));
}

std::optional<std::string> find_device(const std::string& serial) {
  const std::unique_ptr<DIR, decltype([](DIR* d) { ::closedir(d); })> devices(
      ::opendir("/sys/block"));
  while (const dirent* entry = devices ? ::readdir(devices.get()) : nullptr) {
    const std::string name = entry->d_name;
    if (name.starts_with("vd") && read_line("/sys/block/" + name + "/serial") == serial)
      return "/dev/" + name;
  }
  return std::nullopt;
}

bool mount_device(const std::string& device) {
  return ::mount(device.c_str(), kDisk, "ext4", MS_NODEV | MS_NOATIME, nullptr) == 0;
}

// What the guest's root did to its disk is its own affair, as long as it can be mounted again.
Status mount_or_mend(const std::string& device) {
  if (mount_device(device)) return {};
  const int error = errno;
  const ProgramOutput checked = TRY(run_program({"/usr/sbin/e2fsck", "-y", device}));
  if (mount_device(device)) return {};
  return tl::unexpected(
      Error(ErrorKind::kFailed, fmt::format("cannot mount the VM's disk: {}", errno_text(error)))
          .with_hint("agent-vm reset gives the VM a new disk; the workspace stays")
          .with_evidence(checked.lines));
}

Status lay_over(const std::string& folder) {
  const std::string target = "/" + folder;
  const std::string upper = fmt::format("{}/upper/{}", kDisk, folder);
  const std::string work = fmt::format("{}/work/{}", kDisk, folder);
  struct stat original {};
  if (::stat(target.c_str(), &original) != 0) return fail_errno(errno, "there is no {}", target);
  struct stat existing {};
  if (::stat(upper.c_str(), &existing) != 0) {
    // The overlay's root shows the mode and owner of the upper folder.
    TRY(make_directory(upper, original.st_mode & 07777U));
    if (::chown(upper.c_str(), original.st_uid, original.st_gid) != 0 ||
        ::chmod(upper.c_str(), original.st_mode & 07777U) != 0)
      return fail_errno(errno, "cannot set up {}", upper);
  }
  TRY(make_directory(work, 0700));
  const std::string options =
      fmt::format("lowerdir={},upperdir={},workdir={}", target, upper, work);
  if (::mount("overlay", target.c_str(), "overlay", MS_NODEV | MS_NOATIME, options.c_str()) != 0)
    return fail_errno(errno, "cannot lay the VM's disk over {}", target);
  return {};
}

// As after a boot: nothing in it. What was there is removed while the VM goes on.
Status renew_tmp() {
  const std::string now = fmt::format("{}/tmp", kDisk);
  const std::string old = fmt::format("{}/old", kDisk);
  TRY(make_directory(old, 0700));
  // A name that is free: a removal that ended with its VM may have left others, and the numbers of
  // processes are the same in each start from a template.
  std::string aside = old + "/XXXXXX";
  if (::mkdtemp(aside.data()) == nullptr) return fail_errno(errno, "cannot clear /tmp");
  if (::rename(now.c_str(), aside.c_str()) == 0)
    TRY(start_program({"/usr/bin/rm", "-rf", "--one-file-system", old}));
  else if (errno != ENOENT)
    return fail_errno(errno, "cannot clear /tmp");
  TRY(make_directory(now, 0700));
  if (::chmod(now.c_str(), 01777) != 0 ||
      ::mount(now.c_str(), "/tmp", nullptr, MS_BIND, nullptr) != 0)
    return fail_errno(errno, "cannot mount /tmp");
  return {};
}

}  // namespace

bool changed_on_disk(const std::string& path) {
  struct stat status {};
  return ::lstat(fmt::format("{}/upper/{}", kDisk, path).c_str(), &status) == 0;
}

Status mount_disk(const std::string& serial) {
  TRY(make_directory("/run/agent-vm", 0755));
  TRY(make_directory(kDisk, 0700));
  std::optional<std::string> device;
  TRY(retry_at_events("the VM's disk", [&]() -> Result<bool> {
    device = find_device(serial);
    return device.has_value();
  }));
  TRY(mount_or_mend(*device));
  if (::chmod(kDisk, 0700) != 0) return fail_errno(errno, "cannot protect {}", kDisk);
  TRY(make_directory(fmt::format("{}/upper", kDisk), 0755));
  TRY(make_directory(fmt::format("{}/work", kDisk), 0700));
  for (const auto* folder : kLasting) TRY(lay_over(folder));
  return renew_tmp();
}

}  // namespace agent_vm

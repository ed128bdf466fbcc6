#include "state/trash.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <optional>

#include "base/text.h"
#include "config/names.h"
#include "os/files.h"

namespace agent_vm {
namespace {

constexpr const char* kTrash = "trash";
// In front of what is being removed for good; no VM's name starts with it.
constexpr std::string_view kPurging = ".purging-";

// "<vm>@<seconds>": '@' is in no VM's name.
std::optional<TrashEntry> parse_entry(const std::string& file_name) {
  const auto at = file_name.rfind('@');
  if (at == std::string::npos) return std::nullopt;
  // A counter tells apart what was destroyed within one second.
  const auto number = split(file_name.substr(at + 1), '.');
  const auto seconds = parse_unsigned(number[0]);
  TrashEntry entry{file_name, file_name.substr(0, at), seconds.value_or(0)};
  if (!seconds || !valid_vm_name(entry.vm_name)) return std::nullopt;
  return entry;
}

}  // namespace

Result<Trash> Trash::open(const StateDirectory& state, TreeRemover remove) {
  TRY(make_directory_at(state.fd(), kTrash, 0700));
  Fd fd = TRY(open_beneath(state.fd(), kTrash, O_RDONLY | O_DIRECTORY));
  Fd own_state(::fcntl(state.fd(), F_DUPFD_CLOEXEC, 0));
  if (!own_state) return fail_errno(errno, "cannot keep the state directory open");
  return Trash(std::move(own_state), std::move(fd), state.path() + "/" + kTrash, std::move(remove));
}

Result<std::vector<TrashEntry>> Trash::entries() const {
  std::vector<TrashEntry> entries;
  for (const auto& name : TRY(list_directory(fd_.get()))) {
    if (const auto entry = parse_entry(name)) entries.push_back(*entry);
  }
  std::ranges::stable_sort(entries, {}, &TrashEntry::destroyed_at);
  return entries;
}

Result<TrashEntry> Trash::put(const VmDirectory& vm) {
  const auto now = static_cast<std::uint64_t>(std::time(nullptr));
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const std::string suffix = attempt == 0 ? "" : fmt::format(".{}", attempt);
    const std::string name = fmt::format("{}@{}{}", vm.name(), now, suffix);
    if (::renameat2(state_.get(), vm.name().c_str(), fd_.get(), name.c_str(), RENAME_NOREPLACE) ==
        0) {
      static_cast<void>(::fsync(fd_.get()));
      static_cast<void>(::fsync(state_.get()));
      return TrashEntry{name, vm.name(), now};
    }
    if (errno != EEXIST) return fail_errno(errno, "cannot move VM '{}' to the trash", vm.name());
  }
  return fail("cannot move VM '{}' to the trash: too many of that name are there", vm.name());
}

Result<VmDirectory> Trash::restore(const StateDirectory& state, const TrashEntry& entry) {
  if (::renameat2(fd_.get(), entry.file_name.c_str(), state_.get(), entry.vm_name.c_str(),
                  RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST || errno == ENOTEMPTY) return already_exists(entry.vm_name);
    return fail_errno(errno, "cannot bring VM '{}' back", entry.vm_name);
  }
  static_cast<void>(::fsync(state_.get()));
  return state.vm(entry.vm_name);
}

Status Trash::purge(const TrashEntry& entry) {
  // Out of sight first: an interrupted removal must not look like something that can be restored.
  const std::string purging = fmt::format("{}{}", kPurging, entry.file_name);
  if (::renameat(fd_.get(), entry.file_name.c_str(), fd_.get(), purging.c_str()) != 0 &&
      errno != ENOENT) {
    return fail_errno(errno, "cannot remove {}", entry.file_name);
  }
  return remove_(fd_.get(), purging);
}

Result<std::vector<std::string>> Trash::clean(std::uint64_t now) {
  std::vector<std::string> cleaned;
  for (const auto& entry : TRY(entries())) {
    if (entry.expires_at() > now) continue;
    TRY(purge(entry));
    cleaned.push_back(entry.vm_name);
  }
  for (const auto& name : TRY(list_directory(fd_.get()))) {
    if (!name.starts_with(kPurging)) continue;
    TRY(remove_(fd_.get(), name));
    const std::string file_name = name.substr(kPurging.size());
    cleaned.push_back(file_name.substr(0, file_name.find('@')));
  }
  return cleaned;
}

}  // namespace agent_vm

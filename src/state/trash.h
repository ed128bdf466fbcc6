// Destroying VMs, in a way that can be undone until it expires, and that can be repeated when it
// was interrupted (F15): one rename takes a VM away, everything slow comes after it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "state/state_directory.h"

namespace agent_vm {

inline constexpr std::uint64_t kTrashSeconds = 7ULL * 24 * 3600;

struct TrashEntry {
  std::string file_name;  // in trash/
  std::string vm_name;
  std::uint64_t destroyed_at = 0;  // Unix time, seconds
  std::uint64_t expires_at() const { return destroyed_at + kTrashSeconds; }
};

// Removes a tree that may hold files of the VM's subordinate ids.
using TreeRemover = std::function<Status(int dir, const std::string& name)>;

class Trash {
 public:
  // Makes trash/ when it does not exist.
  static Result<Trash> open(const StateDirectory& state, TreeRemover remove);

  // Oldest first.
  Result<std::vector<TrashEntry>> entries() const;
  // Takes a VM out of the state directory. Call with its lock held.
  Result<TrashEntry> put(const VmDirectory& vm);
  // Puts it back; "VM configuration already exists" when its name is taken again.
  Result<VmDirectory> restore(const StateDirectory& state, const TrashEntry& entry);
  // Removes an entry for good.
  Status purge(const TrashEntry& entry);
  // Removes what has expired and what an interrupted purge() left. Returns the names of the VMs of
  // which something was removed.
  Result<std::vector<std::string>> clean(std::uint64_t now);

  std::string path() const { return path_; }

 private:
  Trash(Fd state, Fd fd, std::string path, TreeRemover remove)
      : state_(std::move(state)),
        fd_(std::move(fd)),
        path_(std::move(path)),
        remove_(std::move(remove)) {}

  Fd state_;
  Fd fd_;
  std::string path_;
  TreeRemover remove_;
};

}  // namespace agent_vm

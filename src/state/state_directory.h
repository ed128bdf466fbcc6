// The directory that holds all VMs of one user: <name>/ for each, trash/ for what was destroyed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"
#include "os/lock.h"
#include "state/vm_directory.h"

namespace agent_vm {

class StateDirectory {
 public:
  // $XDG_DATA_HOME/agent-vms, or ~/.local/share/agent-vms.
  static Result<std::string> default_path();

  // Opens `path` and makes it (0700) when it does not exist. Refuses links, other owners and
  // directories that others can write to (S28). Leftovers of creations that were killed are
  // removed.
  static Result<StateDirectory> open_or_make(const std::string& path);
  // The same without making it: kNotFound when it does not exist.
  static Result<StateDirectory> open(const std::string& path);

  const std::string& path() const { return path_; }  // absolute
  int fd() const { return fd_.get(); }

  // Sorted names of all VMs.
  Result<std::vector<std::string>> names() const;
  Result<VmDirectory> vm(const std::string& name) const;

  // Held while a name or a port is being chosen, so that two creations never choose the same.
  Result<DirectoryLock> lock(const Deadline& deadline) const;

 private:
  StateDirectory(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  Fd fd_;
  std::string path_;
};

// "VM configuration already exists", in these words: scripts look for them.
tl::unexpected<Error> already_exists(const std::string& name);

// A VM directory in the making, invisible to every other command until commit(). Destroying the
// object without it removes everything.
class NewVmDirectory {
 public:
  static Result<NewVmDirectory> make(const StateDirectory& state);
  NewVmDirectory(NewVmDirectory&&) = default;
  NewVmDirectory& operator=(NewVmDirectory&&) = delete;
  ~NewVmDirectory();

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }  // valid until commit()

  // Gives it its name; kInvalidInput "VM configuration already exists" when that is taken.
  Status commit(const std::string& name);

 private:
  NewVmDirectory(Fd state, Fd fd, DirectoryLock lock, std::string temporary, std::string path)
      : state_(std::move(state)),
        fd_(std::move(fd)),
        lock_(std::move(lock)),
        temporary_(std::move(temporary)),
        path_(std::move(path)) {}

  Fd state_;
  Fd fd_;
  DirectoryLock lock_;     // tells a creation that runs from one that was killed
  std::string temporary_;  // empty after commit()
  std::string path_;
};

// A branch of a working tree, found by reading .git and nothing else: no git runs, because the
// current directory may be a workspace that a guest writes (S10).
struct CurrentBranch {
  std::string repository;  // absolute path of the top of the working tree
  std::string branch;      // "detached-<12 digits>" when HEAD is detached
};
Result<CurrentBranch> find_current_branch(const std::string& directory);

// "detached-0123456789ab"
std::string detached_branch_name(std::string_view commit);

// The VM that `argument` means: a full name, or a branch (of the current repository before others);
// absent: the one of the current repository's current branch. `directory` is the caller's.
Result<VmDirectory> resolve_vm(const StateDirectory& state,
                               const std::optional<std::string>& argument,
                               const std::string& directory);

}  // namespace agent_vm

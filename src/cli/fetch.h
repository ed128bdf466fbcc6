// Bringing a VM's commits into the user's repository (S10). Theory of operation: everything that
// the guest sends goes into a scratch repository first, where it is bounded in size and checked
// object by object; only then are its branches taken over, by a second fetch that talks to nobody
// but the scratch. A guest that sends garbage, too much, or half of something leaves nothing
// behind.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "control/ssh.h"
#include "state/source_repository.h"
#include "state/vm_directory.h"

namespace agent_vm {

struct FetchedRef {
  std::string name;    // refs/remotes/agent-vm/<vm>/<branch>
  std::string before;  // commit; empty: it is new
  std::string after;
  std::uint64_t commits = 0;  // that `before` did not have
  bool forced = false;        // `after` does not contain `before`
};

inline constexpr std::uint64_t kMaxFetch = 2ULL << 30;  // bytes in one file

// All branches of the VM's workspace to refs/remotes/agent-vm/<vm>/* of `repository`. Returns those
// that changed.
Result<std::vector<FetchedRef>> fetch_from_vm(const VmDirectory& vm, const SshTarget& target,
                                              const std::string& repository,
                                              std::uint64_t max_bytes, const Bounds& bounds);

}  // namespace agent_vm

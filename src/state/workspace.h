// Making the clone that becomes /workspace in the guest.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"
#include "state/source_repository.h"

namespace agent_vm {

struct FileOwner {
  uid_t uid;
  gid_t gid;
};

// Makes `dir`/workspace (`path` is the name of `dir`): a repository of its own with the branch
// checked out, the source's tags, and its view of the branches of `origin` and `upstream`. It
// shares no inode with the source, has none of its hooks or configuration, and no credentials.
// `owner`: who it belongs to; absent: the caller.
Status make_workspace(const SourceRepository& source, int dir, const std::string& path,
                      const std::optional<FileOwner>& owner, const Bounds& bounds);

}  // namespace agent_vm

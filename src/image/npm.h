// npm packages of an image. They are chosen and unpacked by this machine's npm, from the registry
// that it is configured for, as the user who builds. Their install scripts are never run: neither
// here, where they would have the user's rights, nor in the guest.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "image/limits.h"
#include "image/lock_file.h"

namespace agent_vm {

// Fills lock.npm_manifest and lock.npm_lock for `specs`, in the empty folder `folder`.
Status resolve_npm(const std::vector<std::string>& specs, const std::string& folder,
                   const Limits& limits, ImageLock& lock);

// Unpacks what the lock says into the empty folder `folder`, as node_modules/.
Status install_npm(const ImageLock& lock, const std::string& folder, const Limits& limits);

}  // namespace agent_vm

// Descriptors over a Unix socket (SCM_RIGHTS).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

// At most 16. `text` must not be empty.
Status send_descriptors(int socket, std::string_view text, const std::vector<int>& descriptors);

// Waits for one message with exactly `count` descriptors; each comes CLOEXEC. `text`, when given,
// gets what was sent with them, at most 8 KiB.
Result<std::vector<Fd>> receive_descriptors(int socket, std::size_t count,
                                            std::string* text = nullptr);

}  // namespace agent_vm

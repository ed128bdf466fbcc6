// The kernel's random numbers.
#pragma once

#include <cstddef>
#include <string>

#include "base/result.h"

namespace agent_vm {

// At most 256, which the kernel gives in one piece.
Result<std::string> random_bytes(std::size_t count);
// The same as lower-case hexadecimal digits, two for each byte.
Result<std::string> random_hex(std::size_t bytes);

}  // namespace agent_vm

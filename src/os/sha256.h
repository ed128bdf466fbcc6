// SHA-256, by libcrypto.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace agent_vm {

// 64 lower-case hexadecimal digits.
std::string sha256_hex(std::string_view bytes);
// Of everything that can still be read from `fd`.
Result<std::string> sha256_hex_of_file(int fd);

}  // namespace agent_vm

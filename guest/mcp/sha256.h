// SHA-256 (FIPS 180-4) and HMAC (RFC 2104) with it. The guest's programs are linked statically and
// are copied into every image; a whole libcrypto for one signature would be most of their size.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace agent_vm::mcp {

using Sha256 = std::array<std::uint8_t, 32>;
Sha256 sha256(std::string_view bytes);
Sha256 hmac_sha256(std::string_view key, std::string_view bytes);

}  // namespace agent_vm::mcp

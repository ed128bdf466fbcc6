#include "os/random.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdint>
#include <iterator>

#include "base/text.h"

namespace agent_vm {

Result<std::string> random_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  if (::getrandom(bytes.data(), bytes.size(), 0) != std::ssize(bytes))
    return fail_errno(errno, "cannot draw random numbers");
  return bytes;
}

Result<std::string> random_hex(std::size_t bytes) {
  const std::string drawn = TRY(random_bytes(bytes));
  return to_hex({reinterpret_cast<const std::uint8_t*>(drawn.data()), drawn.size()});
}

}  // namespace agent_vm

#include "os/sha256.h"

#include <openssl/evp.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <new>
#include <vector>

#include "base/text.h"

namespace agent_vm {
namespace {

class Hasher {
 public:
  // libcrypto's calls fail only for want of memory here.
  Hasher() : context_(::EVP_MD_CTX_new()) {
    if (!context_ || ::EVP_DigestInit_ex(context_.get(), ::EVP_sha256(), nullptr) != 1) {
      throw std::bad_alloc();
    }
  }
  void update(const void* data, std::size_t size) {
    if (::EVP_DigestUpdate(context_.get(), data, size) != 1) throw std::bad_alloc();
  }
  std::string finish() {
    std::array<std::uint8_t, 32> digest{};
    unsigned size = 0;
    if (::EVP_DigestFinal_ex(context_.get(), digest.data(), &size) != 1) throw std::bad_alloc();
    return to_hex(digest);
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype([](EVP_MD_CTX* c) { ::EVP_MD_CTX_free(c); })> context_;
};

}  // namespace

std::string sha256_hex(std::string_view bytes) {
  Hasher hasher;
  hasher.update(bytes.data(), bytes.size());
  return hasher.finish();
}

Result<std::string> sha256_hex_of_file(int fd) {
  Hasher hasher;
  std::vector<char> buffer(1U << 20U);
  while (true) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "cannot read");
    if (got == 0) return hasher.finish();
    hasher.update(buffer.data(), static_cast<std::size_t>(got));
  }
}

}  // namespace agent_vm

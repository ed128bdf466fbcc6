#include "image/verified_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/log.h"
#include "os/files.h"
#include "os/sha256.h"

namespace agent_vm {
namespace {

constexpr std::size_t kMaxStamps = 1U << 20U;
constexpr const char* kStamps = "verified";

struct OpenedFile {
  Fd fd;
  struct stat status {};
};

Result<OpenedFile> open_file(int dir, const std::string& name) {
  OpenedFile file{TRY(open_beneath(dir, name, O_RDONLY)), {}};
  if (::fstat(file.fd.get(), &file.status) != 0)
    return fail_errno(errno, "cannot examine {}", name);
  if (!S_ISREG(file.status.st_mode)) return fail("{} is not a file", name);
  return file;
}

// A file as it was when its hash was right. Whoever changes a byte changes the times.
std::string stamp_of(const std::string& name, const ImageFile& file, const struct stat& status) {
  return fmt::format("{} {} {} {} {}.{:09} {}.{:09}\n", name, file.sha256, status.st_size,
                     status.st_ino, status.st_mtim.tv_sec, status.st_mtim.tv_nsec,
                     status.st_ctim.tv_sec, status.st_ctim.tv_nsec);
}

}  // namespace

Status verify_files(int dir, const ImageFiles& files) {
  const auto old_stamps = read_file_at(dir, kStamps, kMaxStamps);
  std::string stamps;
  for (const auto& [name, file] : files) {
    const OpenedFile opened = TRY(open_file(dir, name));
    if (static_cast<std::uint64_t>(opened.status.st_size) != file.bytes) {
      return fail("{} has {} bytes instead of {}", name, opened.status.st_size, file.bytes);
    }
    const std::string stamp = stamp_of(name, file, opened.status);
    stamps += stamp;
    if (old_stamps && old_stamps->find(stamp) != std::string::npos) continue;
    log::info("verifying {}", name);
    if (TRY(sha256_hex_of_file(opened.fd.get())) != file.sha256) {
      return fail("{} is not what was made: its hash differs", name);
    }
  }
  // Only the next opening is slower without it.
  if (!old_stamps || *old_stamps != stamps)
    static_cast<void>(write_file_atomic(dir, kStamps, stamps, 0600));
  return {};
}

Result<ImageFile> measure_file(int dir, const std::string& name) {
  const OpenedFile opened = TRY(open_file(dir, name));
  return ImageFile{static_cast<std::uint64_t>(opened.status.st_size),
                   TRY(sha256_hex_of_file(opened.fd.get()))};
}

Status remember_verified(int dir, const ImageFiles& files) {
  std::string stamps;
  for (const auto& [name, file] : files)
    stamps += stamp_of(name, file, TRY(open_file(dir, name)).status);
  return write_file_atomic(dir, kStamps, stamps, 0600);
}

}  // namespace agent_vm

#include "image/memory_pages.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "os/files.h"

namespace agent_vm {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMostRuns = 1U << 22U;

struct Run {
  std::uint64_t offset;
  std::uint64_t length;
};
static_assert(sizeof(Run) == 16);

// A file's bytes, mapped for reading.
class Mapping {
 public:
  static Result<Mapping> of(int fd, std::uint64_t bytes) {
    if (bytes == 0) return Mapping(nullptr, 0);
    void* address = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) return fail_errno(errno, "cannot map {} bytes", bytes);
    return Mapping(static_cast<const char*>(address), bytes);
  }
  ~Mapping() {
    if (address_ != nullptr) ::munmap(const_cast<char*>(address_), size_);
  }
  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(other.size_) {}
  Mapping& operator=(Mapping&&) = delete;

  const char* at(std::uint64_t offset) const { return address_ + offset; }

 private:
  Mapping(const char* address, std::uint64_t size) : address_(address), size_(size) {}
  const char* address_;
  std::uint64_t size_;
};

bool is_zero(const char* page) {
  static constexpr std::array<char, kPage> kZeros{};
  return std::memcmp(page, kZeros.data(), kPage) == 0;
}

Result<std::uint64_t> size_of(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "cannot examine a file");
  return static_cast<std::uint64_t>(status.st_size);
}

// The part that was ever written, from `offset` on; nothing when there is none.
std::optional<Run> next_data(int memory, std::uint64_t offset, std::uint64_t bytes) {
  const off_t begin = ::lseek(memory, static_cast<off_t>(offset), SEEK_DATA);
  if (begin < 0) return std::nullopt;
  const off_t end = ::lseek(memory, begin, SEEK_HOLE);
  const auto from = static_cast<std::uint64_t>(begin) / kPage * kPage;
  const auto to = end < 0 ? bytes : std::min(bytes, static_cast<std::uint64_t>(end));
  if (from >= to) return std::nullopt;
  return Run{from, (to - from + kPage - 1) / kPage * kPage};
}

void add_runs(const char* memory, const Run& data, std::vector<Run>& runs) {
  for (std::uint64_t at = data.offset; at < data.offset + data.length; at += kPage) {
    if (is_zero(memory + at)) continue;
    if (!runs.empty() && runs.back().offset + runs.back().length == at)
      runs.back().length += kPage;
    else
      runs.push_back({at, kPage});
  }
}

Status write_at(int fd, const char* data, std::uint64_t size, std::uint64_t offset) {
  while (size > 0) {
    const ssize_t put = ::pwrite(fd, data, size, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return fail_errno(errno, "cannot write {} bytes of memory", size);
    data += put;
    size -= static_cast<std::uint64_t>(put);
    offset += static_cast<std::uint64_t>(put);
  }
  return {};
}

Result<std::vector<Run>> read_map(int map, std::uint64_t page_bytes, std::uint64_t memory_bytes) {
  const std::uint64_t bytes = TRY(size_of(map));
  if (bytes % sizeof(Run) != 0 || bytes / sizeof(Run) > kMostRuns)
    return fail("the map of a memory has {} bytes", bytes);
  std::vector<Run> runs(bytes / sizeof(Run));
  if (::pread(map, runs.data(), bytes, 0) != static_cast<ssize_t>(bytes))
    return fail_errno(errno, "cannot read the map of a memory");
  std::uint64_t end = 0;
  std::uint64_t sum = 0;
  for (const auto& run : runs) {
    const bool fits = run.offset >= end && run.length > 0 && run.length <= memory_bytes &&
                      run.offset <= memory_bytes - run.length && run.offset % kPage == 0 &&
                      run.length % kPage == 0;
    if (!fits) return fail("the map of a memory names {} bytes at {}", run.length, run.offset);
    end = run.offset + run.length;
    sum += run.length;
  }
  if (sum != page_bytes)
    return fail("the map of a memory names {} bytes of pages, and there are {}", sum, page_bytes);
  return runs;
}

}  // namespace

Result<std::uint64_t> pack_memory(int memory, std::uint64_t bytes, int pages, int map) {
  const Mapping mapping = TRY(Mapping::of(memory, bytes));
  std::vector<Run> runs;
  for (std::uint64_t at = 0; at < bytes;) {
    const auto data = next_data(memory, at, bytes);
    if (!data) break;
    add_runs(mapping.at(0), *data, runs);
    at = data->offset + data->length;
  }
  std::uint64_t packed = 0;
  for (const auto& run : runs) {
    TRY(write_all(pages, {mapping.at(run.offset), run.length}));
    packed += run.length;
  }
  TRY(write_all(map, {reinterpret_cast<const char*>(runs.data()), runs.size() * sizeof(Run)}));
  return packed;
}

Status unpack_memory(int pages, int map, int memory, std::uint64_t bytes) {
  const std::uint64_t page_bytes = TRY(size_of(pages));
  const auto runs = TRY(read_map(map, page_bytes, bytes));
  const Mapping mapping = TRY(Mapping::of(pages, page_bytes));
  std::uint64_t from = 0;
  for (const auto& run : runs) {
    TRY(write_at(memory, mapping.at(from), run.length, run.offset));
    from += run.length;
  }
  return {};
}

}  // namespace agent_vm

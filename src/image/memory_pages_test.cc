#include "image/memory_pages.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <string>

#include "base/fd.h"
#include "os/files.h"

namespace agent_vm {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kBytes = 64 * kPage;

struct Packed {
  Fd pages{::memfd_create("pages", MFD_CLOEXEC)};
  Fd map{::memfd_create("map", MFD_CLOEXEC)};
};

Fd memory_with(std::initializer_list<std::pair<std::uint64_t, std::string>> contents) {
  Fd memory(::memfd_create("memory", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(memory.get(), kBytes), 0);
  for (const auto& [offset, text] : contents)
    EXPECT_EQ(::pwrite(memory.get(), text.data(), text.size(), static_cast<off_t>(offset)),
              std::ssize(text));
  return memory;
}

std::string bytes_of(const Fd& file) {
  ::lseek(file.get(), 0, SEEK_SET);
  return read_all(file.get(), 2 * kBytes).value_or("?");
}

TEST(MemoryPages, WhatIsPackedComesBack) {
  const Fd memory = memory_with({{10, "first"},
                                 {kPage - 2, "over the edge"},
                                 {40 * kPage, std::string(2 * kPage, 'x')},
                                 {kBytes - 1, "e"}});
  Packed packed;
  const auto bytes = pack_memory(memory.get(), kBytes, packed.pages.get(), packed.map.get());
  ASSERT_TRUE(bytes);
  EXPECT_EQ(*bytes, 5 * kPage);
  const Fd copy = memory_with({});
  ASSERT_TRUE(unpack_memory(packed.pages.get(), packed.map.get(), copy.get(), kBytes));
  EXPECT_EQ(bytes_of(copy), bytes_of(memory));
}

TEST(MemoryPages, WrittenZerosAreNotKept) {
  const Fd memory = memory_with({{0, std::string(8 * kPage, '\0')}, {9 * kPage, "x"}});
  Packed packed;
  EXPECT_EQ(pack_memory(memory.get(), kBytes, packed.pages.get(), packed.map.get()).value_or(0),
            kPage);
}

TEST(MemoryPages, UntouchedMemoryIsEmpty) {
  const Fd memory = memory_with({});
  Packed packed;
  EXPECT_EQ(pack_memory(memory.get(), kBytes, packed.pages.get(), packed.map.get()).value_or(1),
            0U);
  EXPECT_TRUE(unpack_memory(packed.pages.get(), packed.map.get(), memory.get(), kBytes));
}

// S27: a map is a file, and a file can be anything.
TEST(MemoryPages, S27_MapsThatDoNotFitAreRefused) {
  const std::vector<std::array<std::uint64_t, 4>> maps{
      {0, kPage, kBytes, kPage},          // behind the end
      {0, kPage, kBytes - kPage, ~0ULL},  // far behind the end
      {kPage, kPage, 0, kPage},           // not ascending
      {0, 2 * kPage, kPage, kPage},       // overlapping
      {0, kPage, 5 * kPage + 1, kPage},   // between pages
      {0, kPage, 5 * kPage, 0},           // nothing
      {0, kPage, 5 * kPage, 3 * kPage}};  // more than there is
  const auto attempt = [](const std::array<std::uint64_t, 4>& map) {
    Packed packed;
    EXPECT_TRUE(write_all(packed.pages.get(), std::string(2 * kPage, 'x')));
    EXPECT_TRUE(write_all(packed.map.get(), {reinterpret_cast<const char*>(map.data()), 32}));
    return unpack_memory(packed.pages.get(), packed.map.get(), memory_with({}).get(), kBytes)
        .has_value();
  };
  for (const auto& map : maps) EXPECT_FALSE(attempt(map)) << map[0] << " " << map[2];
  EXPECT_TRUE(attempt({0, kPage, 5 * kPage, kPage}));
}

}  // namespace
}  // namespace agent_vm

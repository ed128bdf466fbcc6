// A guest's memory, kept without the pages that hold nothing but zeros.
//
//   pages   the others, one after the other
//   map     where each run of them belongs: pairs of little-endian 64-bit numbers, the offset in
//           the memory and the length, both in bytes and multiples of 4096, ascending
//
// Packed and not sparse: one sequential read fills a memory, and a hash covers what there is.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace agent_vm {

// Reads `memory`, a file of `bytes` bytes, and appends to the empty files `pages` and `map`.
// Returns the bytes that are not zero.
Result<std::uint64_t> pack_memory(int memory, std::uint64_t bytes, int pages, int map);

// Writes the pages to where the map says. `memory` has `bytes` bytes and holds zeros. A map that
// does not fit the two files is an error.
Status unpack_memory(int pages, int map, int memory, std::uint64_t bytes);

}  // namespace agent_vm

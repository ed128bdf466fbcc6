// Files that must be what they were when they were made. A hash that was right is remembered with
// the file's size, times and inode, so that only the first opening after a change reads a gigabyte.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"

namespace agent_vm {

struct ImageFile {
  std::uint64_t bytes = 0;
  std::string sha256;
  bool operator==(const ImageFile&) const = default;
};
using ImageFiles = std::map<std::string, ImageFile>;  // by name

// The error says which file is missing, has another size, or another hash. What was found right is
// written down in `dir`.
Status verify_files(int dir, const ImageFiles& files);

// Size and hash of `dir`/`name`.
Result<ImageFile> measure_file(int dir, const std::string& name);

// Writes down that these files have just been measured, so that the next verify_files() does not
// read them again.
Status remember_verified(int dir, const ImageFiles& files);

}  // namespace agent_vm

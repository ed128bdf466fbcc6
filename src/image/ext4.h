// Writing a tree as an ext4 file system, by libext2fs: the same tree gives the same bytes, whoever
// runs it, wherever and whenever. (`mke2fs -d` copies a directory of the host: it leaks that
// directory's change times and order, and needs every owner to exist there.)
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "image/tree.h"

namespace agent_vm {

struct Ext4Options {
  std::uint64_t time = 0;  // seconds since 1970: of every file, and of the file system itself
  std::string identity;    // its UUID and hash seed are made from this text
  std::function<Status(double)> progress;  // fraction done; an error of it ends the writing
};

// Bytes that root.img needs for `tree`, with room to work in until the file system is grown.
std::uint64_t ext4_size_for(const Tree& tree);

// Makes the file `image` and fills it. `tar_path` holds what ArchiveMember refers to.
Status write_ext4(const Tree& tree, const std::string& tar_path, const std::string& image,
                  const Ext4Options& options);

}  // namespace agent_vm

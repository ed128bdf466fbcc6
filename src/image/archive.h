// Package archives, by libarchive: the tar file of all packages' files, and single .deb files.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "image/tree.h"

namespace agent_vm {

// The whole tree of a tar file; files refer to it by ArchiveMember.
Result<Tree> read_tar_tree(const std::string& tar_path);

// The content of some members; an error when one is missing. Paths as in Tree.
Result<std::map<std::string, std::string>> read_tar_members(const std::string& tar_path,
                                                            const std::set<std::string>& paths);

// Hands the content of every regular file to `sink`, block by block with its offset; a sink of one
// file is made by `open`, and an empty one skips the file.
using BlockSink = std::function<Status(std::uint64_t offset, std::string_view block)>;
Status stream_tar(const std::string& tar_path,
                  const std::function<Result<BlockSink>(const std::string& path)>& open);

// The control file of a Debian package.
Result<std::string> read_deb_control(const std::string& deb_path);

}  // namespace agent_vm

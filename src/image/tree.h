// The files of a guest, as a value: what the packages brought, changed by the recipe, before it
// becomes a file system. Times are not in it, because every file of an image has the same one.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

namespace agent_vm {

// Devices are known so that rules can remove them: the guest's kernel makes its own.
enum class NodeType { kFile, kDirectory, kSymlink, kHardLink, kFifo, kDevice };

// The content of a file is what the package archive holds under this name.
struct ArchiveMember {
  std::string path;
  bool operator==(const ArchiveMember&) const = default;
};
// The content of a file is that of a file on the host.
struct HostFile {
  std::string path;
  bool operator==(const HostFile&) const = default;
};

struct Node {
  NodeType type = NodeType::kFile;
  mode_t mode = 0644;  // permission bits, with setuid, setgid and sticky
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t size = 0;                                      // of a file, bytes
  std::variant<std::string, ArchiveMember, HostFile> content;  // of a file
  std::string target;  // of a symlink: what it says; of a hard link: the path of the file
  std::map<std::string, std::string> xattrs;

  bool operator==(const Node&) const = default;
};

// Paths are absolute, without "//", "." or "..", and the root itself is not among them. Iteration
// is in byte order, so a directory comes before what is in it.
class Tree {
 public:
  using Map = std::map<std::string, Node>;

  const Map& nodes() const { return nodes_; }
  const Node* find(const std::string& path) const;

  // Adds or replaces. The parent must be a directory of the tree; a directory that is replaced by a
  // directory keeps its content, and nothing else may replace one.
  Status put(const std::string& path, Node node);
  // Makes the missing parents of `path`: 0755, root.
  Status make_parents(const std::string& path);
  // Removes what matches and all below it; the number of nodes. A file that hard links outside the
  // removed part still name stays as the first of them. See glob_match().
  std::size_t remove(std::string_view glob);
  // Changes permission bits.
  Status set_mode(const std::string& path, mode_t mode);

  // All nodes below and including `path`.
  std::vector<std::string> below(const std::string& path) const;

 private:
  void promote_hard_links(const Map& removed);
  Map nodes_;
};

// '*' and '?' match within one component; '[...]' is a literal. A leading dot is not special.
bool glob_match(std::string_view pattern, std::string_view path);

// "./usr/bin/" -> "/usr/bin"; the root is "". An error for "..".
Result<std::string> normal_path(std::string_view path);

}  // namespace agent_vm

// Files, relative to directory descriptors. Names below a directory are resolved by the kernel
// with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, so that a link planted by a guest or by another user
// is an error and never a detour (S9, S28).
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

// Opens a directory by an ordinary path (links in it are followed: it is the user's own word).
Result<Fd> open_directory(const std::string& path);

// Opens `path`, which must stay below `dir` and contain no link at all. `flags` as open(2);
// O_CLOEXEC is added.
Result<Fd> open_beneath(int dir, const std::string& path, int flags, mode_t mode = 0);

// Opens the directory `path`, making it (and missing parents, 0700) if it does not exist. Refuses
// one that is a link, that another user owns, or that others may write to.
Result<Fd> open_private_directory(const std::string& path);

// The whole file, or an error when it is larger than `max_bytes`. Follows no links.
Result<std::string> read_file_at(int dir, const std::string& path, std::size_t max_bytes);
// By an ordinary path; follows links.
Result<std::string> read_file(const std::string& path, std::size_t max_bytes);
Result<std::string> read_all(int fd, std::size_t max_bytes);

// Replaces `dir`/`name` as a whole or not at all: temporary file, fsync, rename, fsync of the
// directory. On any error (a full disk included) the old content is intact (F9).
Status write_file_atomic(int dir, const std::string& name, std::string_view content, mode_t mode);
// Writes everything, retrying short writes.
Status write_all(int fd, std::string_view content);

// Makes the empty file `to` what `from` is, wherever its offset is. Shares the blocks where the
// file system can; holes stay holes.
Status copy_file(int from, int to);

// A description of its own of an open file: with an offset that nobody shares.
Result<Fd> reopen(int fd, int flags);

// Makes `dir`/`name`; an existing directory is fine.
Status make_directory_at(int dir, const std::string& name, mode_t mode);

// Removes `dir`/`name` and all below it, however deep. Follows no links, crosses no mount. Absent
// is success. Interrupted, it may leave a part as `dir`/`name`.<digits>.tmp.
Status remove_tree_at(int dir, const std::string& name);

// Gives `dir`/`name` and all below it to that owner. Follows no links, crosses no mount.
Status change_owner_at(int dir, const std::string& name, uid_t uid, gid_t gid);

// Allocated bytes of everything below `dir`/`name`, links not followed.
Result<std::uint64_t> tree_size_at(int dir, const std::string& name);

// Names in a directory, without "." and "..", sorted.
Result<std::vector<std::string>> list_directory(int dir);

bool exists_at(int dir, const std::string& name);

// A path through which a descriptor can be named to calls that take no descriptor, such as bind()
// on a Unix socket whose real path would exceed the 107 bytes of sun_path.
std::string proc_fd_path(int fd, std::string_view name = {});

}  // namespace agent_vm

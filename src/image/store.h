// The images of this user: ~/.cache/agent-vm/images/<key>/, and beside them what builds keep. It is
// a cache: all state directories share it, and everything in it can be made again.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "image/manifest.h"
#include "os/lock.h"

namespace agent_vm {

struct Image {
  std::string key;
  std::string directory;         // absolute; root.img, vmlinuz, initrd.img and lock.json inside
  std::uint64_t root_bytes = 0;  // size of root.img
  Manifest manifest;
};

class ImageStore {
 public:
  // $XDG_CACHE_HOME/agent-vm or ~/.cache/agent-vm. Nothing is made yet.
  static Result<ImageStore> of_user();
  explicit ImageStore(std::string root) : root_(std::move(root)) {}

  const std::string& root() const { return root_; }
  std::string images_folder() const { return root_ + "/images"; }
  std::string packages_folder() const { return root_ + "/packages"; }  // .deb files by hash
  std::string bases_folder() const { return root_ + "/bases"; }        // installed packages

  // Makes the folders, private to the user.
  Status make_folders() const;
  // One build or prune at a time. Needs make_folders().
  Result<DirectoryLock> lock(const Deadline& deadline) const;

  // An image that is whole: every file is there, and has the size and the hash that the manifest
  // says (see verify_files()). kNotFound when there is no such image.
  Result<Image> open_image(const std::string& key) const;
  // The newest whole image of a recipe; nothing when there is none. When there are only damaged
  // ones, the newest one's damage is the error.
  Result<std::optional<Image>> find_image(const std::string& recipe_hash) const;

  struct Entry {
    std::string key;
    std::uint64_t disk_bytes = 0;  // allocated
    std::optional<Manifest> manifest;
    std::string problem;  // why it has no manifest
  };
  // All images, newest first; only their manifests are read.
  Result<std::vector<Entry>> list() const;

  // Writes down that the VM in the directory `vm` (absolute) has a disk on the image, whichever
  // state directory it belongs to. The image stays while the VM's disk record names it.
  Status add_user(const std::string& key, const std::string& vm) const;
  // Those VM directories.
  Result<std::vector<std::string>> users(const std::string& key) const;

  struct Pruned {
    std::vector<std::string> keys;
    std::uint64_t freed_bytes = 0;
  };
  // Removes the images whose keys are not `in_use` and that have no users(), and what builds keep.
  // Takes the lock. A dry run
  // only counts.
  Result<Pruned> prune(const std::set<std::string>& in_use, bool dry_run,
                       const Deadline& deadline) const;

 private:
  std::string root_;
};

// As ImageStore::of_user() and open_image().
Result<Image> open_image(const std::string& key);

// Keys are hexadecimal digits; anything else is kInvalidInput.
Status valid_image_key(std::string_view key);

}  // namespace agent_vm

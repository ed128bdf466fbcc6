// A lock file: exactly which packages an image is made of, so that it can be made again.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/vm_config.h"

namespace agent_vm {

struct LockedPackage {
  std::string name;
  std::string version;
  std::string architecture;  // "amd64" or "all"
  std::string sha256;        // of the .deb file
  std::uint64_t size = 0;    // of it, bytes
  std::string path;          // below the mirror, "pool/main/…"
  bool security = false;     // from the mirror of security updates

  bool operator==(const LockedPackage&) const = default;
};

struct ImageLock {
  std::string release;       // "bookworm"
  std::string architecture;  // "amd64"
  std::uint64_t time = 0;    // seconds since 1970: when the newest of the package lists was made
  ImageChoice choice;        // what was asked for
  std::vector<LockedPackage> packages;  // sorted by name
  // npm's own package.json and package-lock.json; both empty without npm packages.
  std::string npm_manifest;
  std::string npm_lock;

  bool operator==(const ImageLock&) const = default;
};

std::string to_json_text(const ImageLock& lock);
// `where` names the file in errors. Everything is checked: names, versions, hashes, paths.
Result<ImageLock> parse_lock(std::string_view json_text, std::string_view where);
// Of its JSON text.
std::string hash_of(const ImageLock& lock);

}  // namespace agent_vm

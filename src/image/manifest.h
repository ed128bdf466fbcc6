// manifest.json of an image: what it is made of, and the hashes that say whether it still is.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "config/vm_config.h"
#include "image/verified_files.h"

namespace agent_vm {

struct Manifest {
  std::string key;          // name of the image's folder: of recipe and lock
  std::string recipe_hash;  // see Recipe
  std::string lock_hash;    // see hash_of(ImageLock)
  std::string created_at;   // UTC, "2026-01-31T12:00:00Z"
  std::string release;      // "bookworm"
  std::string kernel_release;
  ImageChoice choice;
  ImageFiles files;                             // root.img, vmlinuz, initrd.img
  std::map<std::string, std::string> packages;  // name -> version
  std::map<std::string, std::string> npm;       // the same of npm packages

  bool operator==(const Manifest&) const = default;
};

std::string to_json_text(const Manifest& manifest);
// Refuses another schema, missing files, and values of the wrong form.
Result<Manifest> parse_manifest(std::string_view json_text, std::string_view where);

}  // namespace agent_vm

// The image that tests start VMs from.
#pragma once

#include <optional>
#include <string>

namespace agent_vm::test {

// A cache of this run's own, for XDG_CACHE_HOME, that holds a copy of the user's image in which
// `dev` can become root (become_root/). Made on the first call. Nothing, and the reason, when it
// cannot be made; there has to be an image.
struct ImageCache {
  std::string path;       // XDG_CACHE_HOME; empty on failure
  std::string directory;  // of the image in it
  std::string problem;
};
const ImageCache& image_cache();

// The user's own image, untouched: its directory. Needs image_cache().
const std::string& original_image();

}  // namespace agent_vm::test

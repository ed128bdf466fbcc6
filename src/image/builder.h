// Building an image: choose the packages (or take a lock), fetch them, install them, compose the
// image, and put it in its place as a whole.
#pragma once

#include <optional>
#include <string>

#include "base/deadline.h"
#include "base/result.h"
#include "image/limits.h"
#include "image/lock_file.h"
#include "image/progress.h"
#include "image/recipe.h"
#include "image/store.h"

namespace agent_vm {

struct BuildOptions {
  std::optional<ImageLock> lock;     // nothing: the newest packages
  bool update = false;               // build although an image of the recipe exists
  std::string etc_apt = "/etc/apt";  // where this machine's sources are
  Limits limits;
};

struct BuildResult {
  Image image;
  bool reused = false;  // it was there already
};

// Needs the store's folders and its lock, which the caller takes. What the caller's signals or a
// full disk interrupt leaves nothing behind, and never an image that is not whole.
Result<BuildResult> build_image(const ImageStore& store, const Recipe& recipe,
                                const BuildOptions& options, Progress& progress);

// Chooses the packages only.
Result<ImageLock> make_lock(const Recipe& recipe, const BuildOptions& options, Progress& progress);

// Name of the folder of the image that this recipe and this lock give.
std::string image_key(const Recipe& recipe, const ImageLock& lock);

}  // namespace agent_vm

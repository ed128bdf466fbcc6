// Which image a VM starts from.
#pragma once

#include <optional>

#include "base/result.h"
#include "config/vm_config.h"
#include "image/store.h"

namespace agent_vm {

struct DiskRecord;

struct ChosenImage {
  Image image;
  // The image that a new disk would get, when that is another one.
  bool newer_exists = false;
};

// The image that the disk is an overlay on, or without a disk the newest of the VM's recipe.
// kNotFound, with the command that builds it, when it is not there.
Result<ChosenImage> choose_image(const VmConfig& config, const std::optional<DiskRecord>& disk);

// What the VM's image is made of: what was configured, and `sudo` when `dev` may become root.
ImageChoice image_choice_of(const VmConfig& config);

}  // namespace agent_vm

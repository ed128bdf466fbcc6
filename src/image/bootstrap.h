// Installing Debian packages into a tree of their own, by mmdebstrap, as an ordinary user with
// subordinate ids, or as root. The same packages give the same bytes.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "image/limits.h"
#include "image/lock_file.h"
#include "image/progress.h"
#include "image/scratch.h"

namespace agent_vm {

// Names everything but the packages that goes into the result of install_packages().
std::string bootstrap_options_id();

// Whether this machine and this user can install packages at all; asked before anything is fetched.
Status check_bootstrap();

// Installs exactly the lock's packages, whose .deb files are in `cache` under their hashes, and
// writes the result, as root sees it, as a tar file.
Status install_packages(const ImageLock& lock, const std::string& cache, const Scratch& scratch,
                        const Limits& limits, Progress& progress, const std::string& tar_path);

}  // namespace agent_vm

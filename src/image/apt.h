// Which packages: a private apt, with this machine's sources and keys and nothing else of its
// configuration, that needs no privilege.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "image/apt_sources.h"
#include "image/limits.h"
#include "image/lock_file.h"
#include "image/progress.h"
#include "image/scratch.h"

namespace agent_vm {

// A package that stands in for the tools that make an initramfs in the guest, which a kernel
// package asks for, and which an image does not need. Never in a lock file.
inline constexpr const char* kStandInPackage = "agent-vm-initramfs";

class PrivateApt {
 public:
  // `sources` as from debian_sources(). Works in `scratch`, which must outlive it.
  static Result<PrivateApt> make(const Scratch& scratch, std::vector<AptSource> sources,
                                 const Limits& limits);

  // Fetches the package lists and leaves out sources that turn out not to be Debian's.
  Status update();
  // The newest versions of the essential packages, of `names`, and of what they depend on. Sorted.
  // Needs update().
  Result<std::vector<LockedPackage>> resolve(const std::vector<std::string>& names);
  // When the newest of the package lists was made. Needs update().
  Result<std::uint64_t> lists_time() const;

  // Fetches those of `packages` that `cache` lacks into it, as <sha256>.deb. Needs no update().
  Status fetch(const std::vector<LockedPackage>& packages, const std::string& cache,
               Progress& progress);

 private:
  PrivateApt(const Scratch& scratch, std::vector<AptSource> sources, const Limits& limits)
      : scratch_(&scratch), sources_(std::move(sources)), limits_(limits) {}
  Status write_configuration(const std::string& network_settings);
  Status write_sources();
  Result<std::string> apt(const std::vector<std::string>& argv) const;
  Status fetch_from(const std::vector<const LockedPackage*>& missing, bool swap_mirrors,
                    const std::string& folder, Progress& progress);
  std::vector<std::string> mirrors(bool security) const;

  const Scratch* scratch_;
  std::vector<AptSource> sources_;
  Limits limits_;
  std::string root_;     // the folder that apt takes for /
  std::string release_;  // its codename
};

// Makes the stand-in's .deb file in `folder`; its path.
Result<std::string> make_stand_in_package(const std::string& folder);

}  // namespace agent_vm

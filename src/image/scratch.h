// The folder in which an image is built: outside of $HOME, because the packages are installed under
// the user's subordinate ids, which may not enter a private home. Gone when the build ends, however
// it ends; what a killed build left is removed by the next one.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

class Scratch {
 public:
  // In $TMPDIR or /var/tmp. Removes what earlier builds of this user left there.
  static Result<Scratch> make();
  Scratch(Scratch&& other) noexcept;
  Scratch& operator=(Scratch&&) = delete;
  ~Scratch();

  const std::string& path() const { return path_; }
  // A folder in it, made if missing, mode 0755.
  Result<std::string> folder(const std::string& name) const;

 private:
  Scratch(std::string path, Fd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string path_;
  Fd lock_;  // held while the folder is in use
};

}  // namespace agent_vm

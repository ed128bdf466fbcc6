// The one folder that the file tools may touch.
//
// Names are resolved by the kernel (openat2, RESOLVE_BENEATH), relative to a descriptor of the
// folder: `..`, absolute symbolic links and links that lead out are refused while they are walked,
// so that there is no moment between a check and its use. Without openat2 nothing opens.
#pragma once

#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm::workspace {

class Root {
 public:
  static Result<Root> open(const std::string& path);

  const std::string& path() const { return path_; }

  // A name as the tools take it, relative to the folder: "src/a.c", "/workspace/src/a.c" and "."
  // are fine. Says nothing about whether it exists.
  Result<std::string> relative(const std::string& name) const;

  // Opens beneath the folder, following links that stay inside. O_CLOEXEC is added.
  Result<Fd> open_file(const std::string& name, int flags) const;
  Result<Fd> open_directory(const std::string& name) const;

  // Where a file is or will be: its directory, and its name in there. A link to a file is followed,
  // so that writing changes the file and keeps the link.
  struct Place {
    Fd directory;
    std::string name;
  };
  // Makes missing directories when `create_directories`.
  Result<Place> place(const std::string& name, bool create_directories) const;

 private:
  Result<Fd> open_beneath(const std::string& relative_name, int flags) const;
  Status make_directories(const std::string& relative_name) const;

  std::string path_;
  Fd fd_;
};

}  // namespace agent_vm::workspace

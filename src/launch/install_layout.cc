#include "launch/install_layout.h"

#include <filesystem>

namespace agent_vm {

Result<InstallLayout> InstallLayout::find() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return fail("cannot find the running program: {}", error.message());
  // bin/agent-vm and libexec/agent-vm/<program>: the prefix is where both folders are.
  auto prefix = self.parent_path().parent_path();
  if (prefix.filename() == "libexec") prefix = prefix.parent_path();
  const auto libexec = prefix / "libexec" / "agent-vm";
  return InstallLayout{libexec / "agent-vm-supervisor", libexec / "agent-vm-relay",
                       libexec / "guest", prefix / "share" / "agent-vm" / "image"};
}

}  // namespace agent_vm

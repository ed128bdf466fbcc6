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
  const auto share = prefix / "share" / "agent-vm";
  return InstallLayout{.supervisor = libexec / "agent-vm-supervisor",
                       .relay = libexec / "agent-vm-relay",
                       .uplink = libexec / "agent-vm-uplink",
                       .resolver = libexec / "agent-vm-resolver",
                       .guest_programs = libexec / "guest",
                       .image_files = share / "image",
                       .proxy_files = share / "proxy"};
}

}  // namespace agent_vm

#include "plan/jail.h"

namespace agent_vm {

std::vector<JailMount> program_mounts() {
  using Kind = JailMount::Kind;
  // Debian has merged /usr since 12: /lib and friends are links, and links they become here too.
  return {{Kind::kBindReadOnly, "/usr", "/usr"},
          {Kind::kSymlink, "usr/bin", "/bin"},
          {Kind::kSymlink, "usr/lib", "/lib"},
          {Kind::kSymlink, "usr/lib64", "/lib64"},
          {Kind::kBindReadOnly, "/etc/ld.so.cache", "/etc/ld.so.cache"},
          {Kind::kDevice, "/dev/null", "/dev/null"}};
}

}  // namespace agent_vm

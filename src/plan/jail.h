// What one confined child is allowed: pure data, printed by `start --dry-run`, applied by confine/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/id_map.h"

namespace agent_vm {

// virtiofsd holds one descriptor for each inode that the guest knows.
constexpr std::uint64_t kMostShareFiles = 1U << 20U;

struct JailMount {
  enum class Kind {
    kBindReadOnly,  // source: a host path (file or directory), read-only, nosuid, nodev
    kBind,          // the same, writable
    kDevice,        // source: a device node of the host, such as /dev/null
    kTmpfs,         // empty, 64 KiB at most unless said
    kSymlink,       // source: what the link says
  };
  Kind kind;
  std::string source;
  std::string target;  // absolute, inside the jail
};

// Every jail has its own user, mount, network, IPC and UTS namespace, and sees a root file system
// that holds just its mounts. No jail can gain privileges (no_new_privs), and its supplementary
// groups are empty.
struct Jail {
  enum class Network {
    kEmpty,    // a namespace with a dead loopback
    kGateway,  // the VM's gateway namespace
    kHost,     // the host's own: for the uplink, whose work it is
  };
  Network network = Network::kEmpty;
  std::vector<JailMount> mounts;
  // Ids that exist in the jail's user namespace; "outside" counts in the VM's namespace.
  std::vector<IdRange> ids;
  std::uint32_t uid = 0;  // who the program runs as, inside
  std::uint32_t gid = 0;
  // Keeps the user's supplementary groups, which are dropped otherwise. Only for QEMU on KVM: it
  // opens /dev/kvm itself (before version 9 it takes no descriptor), and to group `kvm` that is
  // open.
  bool keeps_groups = false;
  // Capabilities in the jail's own user namespace that the bounding set keeps, as CAP_* numbers.
  std::vector<int> capabilities;
  std::uint64_t max_open_files = 1024;
  // Of its own memory (RLIMIT_DATA); 0: no limit.
  std::uint64_t max_data_bytes = 0;
};

// The mounts that any dynamically linked program of the host needs: /usr, its links,
// /etc/ld.so.cache, /dev/null. Nothing of a user's.
std::vector<JailMount> program_mounts();

}  // namespace agent_vm

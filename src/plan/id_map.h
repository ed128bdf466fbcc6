// Which host ids the ids inside a VM's user namespace are.
//
//   inside            outside, for an ordinary user        outside, when root runs agent-vm
//   0     guest root  first subordinate id                 kRootRangeStart
//   1000  guest dev   the user                             kRootRangeStart + 1000
//   others            further subordinate ids              kRootRangeStart + the same number
//   65530             (a subordinate id)                   0: the supervisor itself, nobody else
//
// So a file that `dev` makes in the share belongs to the user, one that guest root makes belongs to
// an id that nobody is, and id 0 of the host is not reachable at all. The last ids are not part of
// the share's map: the confined programs of the host side run as these, and own nothing.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace agent_vm {

constexpr std::uint32_t kGuestRoot = 0;
constexpr std::uint32_t kGuestDev = 1000;
// Size of the map. Images use ids below 65536, like every Debian.
constexpr std::uint32_t kMappedIds = 65536;
// Ids of host-side programs; the share's map ends before the first of them.
constexpr std::uint32_t kFirstHelperId = 65520;
constexpr std::uint32_t kQemuId = 65520;
constexpr std::uint32_t kRelayId = 65521;
constexpr std::uint32_t kUplinkId = 65522;
constexpr std::uint32_t kResolverId = 65523;
constexpr std::uint32_t kProxyId = 65524;
// When root runs agent-vm, the supervisor's own id in the namespace: the kernel lets only an id
// that has a mapping make the namespaces of the jails. No jail's map contains it.
constexpr std::uint32_t kSupervisorId = 65530;

// Where the ids come from when root runs agent-vm: just above the range that systemd-nspawn uses
// for containers (0x00080000-0x6FFFFFFF), moved up past any overlap with /etc/subuid.
constexpr std::uint32_t kRootRangeStart = 0x70000000;

struct IdRange {
  std::uint32_t inside;
  std::uint32_t outside;
  std::uint32_t count;
  bool operator==(const IdRange&) const = default;
};

struct IdMap {
  std::vector<IdRange> uids;
  std::vector<IdRange> gids;
  // True: the kernel lets us write the maps ourselves (root). False: newuidmap and newgidmap do.
  bool written_directly = false;

  std::uint32_t outside_uid(std::uint32_t inside) const;
  std::uint32_t outside_gid(std::uint32_t inside) const;
};

// An entry of /etc/subuid or /etc/subgid: owner:first:count. The owner is a name or a number.
struct SubordinateRange {
  std::string owner;
  std::uint32_t first;
  std::uint32_t count;
};
// Lines that are not entries are ignored, as newuidmap does.
std::vector<SubordinateRange> parse_subordinate_ranges(std::string_view text);

struct IdMapInputs {
  uid_t uid;
  gid_t gid;
  std::string user_name;
  std::vector<SubordinateRange> subuids;
  std::vector<SubordinateRange> subgids;
};

// kMissing, with the command that mends it, when the user has too few subordinate ids.
Result<IdMap> plan_id_map(const IdMapInputs& inputs);

// The content of /proc/<pid>/uid_map.
std::string format_id_map(const std::vector<IdRange>& ranges);

}  // namespace agent_vm

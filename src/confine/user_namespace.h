// The VM's user namespace: the supervisor lives in it, so that it may make the VM's other
// namespaces and own its children without any privilege on the host.
#pragma once

#include "base/result.h"
#include "os/spawn.h"
#include "plan/id_map.h"

namespace agent_vm {

// The id map for the user who runs us, from the system's /etc/passwd, /etc/subuid and /etc/subgid.
Result<IdMap> system_id_map();

// Moves this (single-threaded) process into a new user namespace with that map, and into a mount
// namespace of its own. Afterwards it has every capability there, and none on the host; its uid and
// its files are the same as before.
Status enter_user_namespace(const IdMap& map);

// When root runs us: gives up root's own groups and takes that of /dev/kvm, where it exists, which
// QEMU keeps (Jail::keeps_groups). Call before enter_user_namespace(); nothing when not root.
Status take_kvm_group();

// All ids of this process become that one of the user namespace that it is in.
Status become_in_namespace(std::uint32_t id);

// Runs `command` as `dev` of a VM would be on the host, with guest root's powers over the mapped
// ids: for what the user cannot do to files of subordinate ids (removing a workspace, making a
// clone that belongs to dev when root runs us). `as` is an id inside the map.
SpawnSpec in_user_namespace(SpawnSpec spec, const IdMap& map, std::uint32_t as);

}  // namespace agent_vm

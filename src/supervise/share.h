// The vhost-user socket between QEMU and virtiofsd.
#pragma once

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

struct ShareSocket {
  Fd listener;   // for virtiofsd
  Fd connected;  // for QEMU: waits in the listener's queue until virtiofsd takes it
};

// Needs the VM's directory only for a moment, as the place where a Unix socket must have a name.
Result<ShareSocket> make_share_socket(int vm_directory);

}  // namespace agent_vm

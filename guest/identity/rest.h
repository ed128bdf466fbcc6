// Letting go of the share, so that the guest can be saved, and taking it up again. QEMU cannot save
// a share, and a file system that lost its device is lost to whoever has files of it open: so
// nobody may have, but the agent service, which is stopped and started again.
#pragma once

#include "identity/identity.h"

namespace agent_vm {

// Stops the agent service and unmounts /workspace. When somebody else uses it, fails, names them,
// and leaves all as it was; with `force` their files in /workspace are lost to them.
IdentityReport rest(bool force);

// Ends the SSH connections, whose other ends are gone. What runs in them goes on as it does after a
// connection broke.
Status end_connections();

}  // namespace agent_vm

// The VM's own disk. The root file system lasts one run: it is the image's, or a template's, each
// time anew, so that no start depends on what a guest did to it. What the guest changes in the
// folders where changes should last goes to the disk, and is laid over them at the next start.
#pragma once

#include <string>

#include "base/result.h"

namespace agent_vm {

// Mounts the disk with that serial number, which may still be on its way, and lays its folders over
// /etc, /home, /opt, /root, /srv, /usr and /var. /tmp is on it, too, but empty.
Status mount_disk(const std::string& serial);

// Whether an earlier run of this VM changed or added `path` ("etc/systemd"), or something below it.
// Call after mount_disk().
bool changed_on_disk(const std::string& path);

}  // namespace agent_vm

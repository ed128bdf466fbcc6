// From a VM's records to all that a start needs: programs found, image opened and verified, disk
// there, plan made. The command prints it (`start --dry-run`), the supervisor executes it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "config/vm_config.h"
#include "plan/launch_plan.h"
#include "state/vm_directory.h"

namespace agent_vm {

// What the disk of a VM is an overlay on: disk.json beside disk.qcow2. An overlay on any other root
// file system would be garbage, so a newer image never replaces this one silently: `reset` does.
struct DiskRecord {
  std::string image_key;
  std::uint64_t bytes = 0;
};

struct PreparedStart {
  LaunchPlan plan;
  Accelerator accelerator = Accelerator::kTcg;
  std::string image_key;
  std::string image_root;  // path of root.img
  std::uint64_t disk_bytes = 0;
  bool disk_exists = false;
  // Worth a line to the user: software emulation, an image newer than the disk's.
  std::vector<std::string> notes;
};

// Reads only: starts no VM, writes nothing.
Result<PreparedStart> prepare_start(const VmDirectory& vm, const VmConfig& config,
                                    const Deadline& deadline);

// Makes disk.qcow2 when the VM has none. A half-made one never gets its name.
Status ensure_disk(const VmDirectory& vm, const PreparedStart& prepared, const Deadline& deadline);

// Removes the disk; the next start makes a new one, on the newest image. The VM must not run.
Status discard_disk(const VmDirectory& vm);

inline constexpr const char* kDiskFile = "disk.qcow2";
inline constexpr const char* kDiskRecordFile = "disk.json";

Result<std::optional<DiskRecord>> read_disk_record(const VmDirectory& vm);

}  // namespace agent_vm

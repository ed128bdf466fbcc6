// From a VM's records to all that a start needs: programs found, image opened and verified, disk
// there, plan made. The command prints it (`start --dry-run`), the supervisor executes it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"
#include "config/vm_config.h"
#include "image/template_store.h"
#include "launch/suspended.h"
#include "plan/launch_plan.h"
#include "state/vm_directory.h"

namespace agent_vm {

// What the disk of a VM belongs to: disk.json beside disk.img. The disk holds what the guest
// changed of its image, so a newer image never replaces this one silently: `reset` does.
struct DiskRecord {
  std::string image_key;
  std::uint64_t bytes = 0;
};

struct PreparedStart {
  LaunchPlan plan;
  Accelerator accelerator = Accelerator::kTcg;
  std::string image_key;
  std::string image_directory;
  std::string image_root;  // path of root.img
  std::uint64_t root_bytes = 0;
  std::uint64_t disk_bytes = 0;
  bool disk_exists = false;
  std::string template_key;                    // of this image and machine
  std::shared_ptr<const Template> warm;        // the template that is resumed; null: a boot
  bool makes_template = false;                 // the boot leaves a template for the next start
  std::shared_ptr<const Suspended> suspended;  // the VM goes on from there, or not at all
  SuspendedMachine machine;                    // what a suspended VM of this start would need
  Fd secrets;                                  // what the proxy puts in; see launch/secrets.h
  Fd git_broker;                               // see supervise/git_broker.h
  // Worth a line to the user: software emulation, an image newer than the disk's.
  std::vector<std::string> notes;
};

// Reads only: starts no VM, writes nothing. `cold`: boot, even if there is a template. A suspended
// VM keeps the memory and the processors that it was suspended with.
Result<PreparedStart> prepare_start(const VmDirectory& vm, const VmConfig& config, bool cold,
                                    const Deadline& deadline);

// Makes disk.img when the VM has none: an empty file system. A half-made one never gets its name.
Status ensure_disk(const VmDirectory& vm, const PreparedStart& prepared, const Deadline& deadline);

// Removes the disk; the next start makes a new one, on the newest image. The VM must not run.
Status discard_disk(const VmDirectory& vm);

// An overlay over the root file system, without a name: it lasts as long as it is open, that is one
// run. Empty, or as a suspended VM left it. What shall last is written to the VM's disk.
Result<Fd> make_root_overlay(const VmDirectory& vm, const PreparedStart& prepared,
                             const Deadline& deadline);

// Where the supervisor mounts the guest's memory; see supervise/guest_memory.h.
inline constexpr const char* kMemoryFolder = "memory";
inline constexpr const char* kMemoryFile = "ram";

inline constexpr const char* kDiskFile = "disk.img";
inline constexpr const char* kDiskRecordFile = "disk.json";

Result<std::optional<DiskRecord>> read_disk_record(const VmDirectory& vm);

}  // namespace agent_vm

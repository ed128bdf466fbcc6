// A suspended VM: the folder `suspended` in its directory, with the guest's memory, the state of
// its devices and its root file system. While that folder is there, the VM's disk is the one that
// the saved guest knows: nothing else may write to it.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "config/vm_config.h"
#include "state/vm_directory.h"

namespace agent_vm {

namespace suspended_files {
inline constexpr const char* kFolder = "suspended";
inline constexpr const char* kPages = "pages";      // see memory_pages.h
inline constexpr const char* kMap = "map";          // the same
inline constexpr const char* kDevices = "devices";  // QEMU's migration stream, without the memory
inline constexpr const char* kRoot = "root.qcow2";  // what the run wrote, over the next
inline constexpr const char* kBase = "base.qcow2";  // what its template wrote; not after a boot
}  // namespace suspended_files

// Below a VM's directory, while others are made of it: `suspended`, the disk and the workspace.
inline constexpr const char* kForkFolder = "fork.new";

// What the saved guest was running on, and must find again.
struct SuspendedMachine {
  std::string key;  // of image, QEMU, processor and arguments: template_key of the start
  std::string image_key;
  std::string qemu_build;
  std::string accelerator;
  std::uint64_t memory_bytes = 0;
  unsigned cpus = 0;
  std::string at;         // when, UTC
  bool is_other = false;  // saved from another VM, so the guest must become this one
};

struct Suspended {
  SuspendedMachine machine;
  std::map<std::string, Fd> files;

  bool has_base() const { return files.contains(suspended_files::kBase); }
  int file(const char* name) const { return files.at(name).get(); }
};

// By its name alone, without reading it.
bool is_suspended(const VmDirectory& vm);
// "since 2026-01-31T12:00:00Z", or what is wrong; for people.
std::string describe_suspended(const VmDirectory& vm);
// Whole and verified; the error says what is damaged and what can be done.
Result<Suspended> open_suspended(const VmDirectory& vm);
// What a supervisor that was killed left half-made.
Status remove_drafts(const VmDirectory& vm);
// Removes it. From then on the VM is stopped, as if its power had failed.
Status discard_suspended(const VmDirectory& vm);

// One in the making, under a name that nobody opens until commit().
class SuspendedDraft {
 public:
  static Result<SuspendedDraft> begin(int parent);
  Result<Fd> create(const char* name);
  Status commit(const SuspendedMachine& machine);
  // Removes what there is of it, after a failure.
  void discard();

 private:
  SuspendedDraft(Fd parent, Fd directory)
      : parent_(std::move(parent)), directory_(std::move(directory)) {}
  Fd parent_;
  Fd directory_;
  std::vector<std::string> names_;
};

}  // namespace agent_vm

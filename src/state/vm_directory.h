// The directory of one VM: its records, and the lock under which they change.
#pragma once

#include <optional>
#include <string>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"
#include "config/vm_config.h"
#include "os/lock.h"
#include "state/run_record.h"

namespace agent_vm {

class VmDirectory {
 public:
  // `state` is the open state directory and `state_path` its absolute path. kNotFound when there is
  // no such VM.
  static Result<VmDirectory> open(int state, const std::string& state_path,
                                  const std::string& name);

  const std::string& name() const { return name_; }
  // Absolute. For messages and for programs that take names; our own code uses fd().
  const std::string& path() const { return path_; }
  int fd() const { return fd_.get(); }

  // Exclusive among all agent-vm commands. kTimeout at the deadline; kNotFound when the VM was
  // destroyed while we waited.
  Result<DirectoryLock> lock(const Deadline& deadline) const;

  // A config.json that cannot be understood is renamed to config.json.corrupt-<time> and the error
  // says so (F11); one of another schema is left alone.
  Result<VmConfig> read_config() const;
  // Call with the lock held.
  Status write_config(const VmConfig& config) const;

  // Nothing: no supervisor has recorded that it runs. A torn record is quarantined as config.json's
  // is, with a warning, and counts as nothing. The record may be stale: ask it.
  Result<std::optional<RunRecord>> read_run() const;
  Status write_run(const RunRecord& record) const;
  Status remove_run() const;  // absent is fine

  // Another small file of this directory, such as "mcp_token"; no links.
  Result<std::string> read_small_file(const std::string& path) const;

 private:
  VmDirectory(Fd state, Fd fd, std::string name, std::string path)
      : state_(std::move(state)),
        fd_(std::move(fd)),
        name_(std::move(name)),
        path_(std::move(path)) {}

  Fd state_;
  Fd fd_;
  std::string name_;
  std::string path_;
};

// "2026-01-31T12:00:00Z"
std::string utc_now();

// The names of files in a VM's directory that more than one part of the code uses.
namespace vm_files {
inline constexpr const char* kConfig = "config.json";
inline constexpr const char* kRun = "run.json";
inline constexpr const char* kPrivateKey = "ssh/id_ed25519";   // the owner's, into this VM
inline constexpr const char* kHostKey = "ssh/host_ed25519";    // the VM's own, for its sshd
inline constexpr const char* kKnownHosts = "ssh/known_hosts";  // that key, under the name of the VM
inline constexpr const char* kMcpToken = "mcp_token";          // 64 hexadecimal digits
inline constexpr const char* kWorkspace = "workspace";
inline constexpr const char* kLogs = "logs";
}  // namespace vm_files

}  // namespace agent_vm

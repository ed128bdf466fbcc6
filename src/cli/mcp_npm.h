// MCP servers of npm's in a running VM. What their authors tell people to run is `npx -y PACKAGE`,
// which would look for the package at each start of a server, that is for each session. So the
// package is installed once, and its program is the server's command.
//
// Theory of operation. The guest's npm installs, as `dev` and by SSH, into a folder beside the
// finished ones; package scripts do not run, since they would run outside of the agent service's
// confinement. What is complete gets its name, <package>@<version>, in one step, and is never
// changed again: another version has another folder, and a session that still runs the old one is
// not disturbed. Folders that no server of the VM's configuration names are removed.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "config/vm_config.h"
#include "control/ssh.h"
#include "os/interrupt.h"
#include "state/vm_directory.h"

namespace agent_vm {

// In the state directory of the agent service, which it may read under all its confinement, and
// which is kept on the VM's disk.
inline constexpr const char* kNpmServers = "/var/lib/agent-mcp/npm";

struct NpxCommand {
  std::string spec;     // name, @scope/name, with an optional @version
  std::string program;  // empty: the one that npx would choose
  std::vector<std::string> arguments;
};
// `npx [-y] SPEC ARGUMENT...` or `npx [-y] --package SPEC PROGRAM ARGUMENT...`, taken apart;
// nothing when argv[0] is not "npx".
Result<std::optional<NpxCommand>> parse_npx(const std::vector<std::string>& argv);

struct NpmPackage {
  std::string version;
  std::string program;               // of its folder node_modules/.bin
  std::vector<std::string> scripts;  // packages with an install script, which was not run
};
// From npm's own record of what it installed (node_modules/.package-lock.json): a guest's text.
Result<NpmPackage> read_npm_record(std::string_view text, const NpxCommand& command);

// Its name below kNpmServers: "@scope+name@1.2.3".
std::string npm_folder(std::string_view package, std::string_view version);
// The inverse, of a server's command: "@scope/name@1.2.3"; empty when that is not in kNpmServers.
std::string npm_package_of(const McpServer& server);

// A package in the guest that has no name yet. Unless it is kept, it is removed, and whatever
// installs it ended.
class NpmInstall {
 public:
  using Progress = std::function<void(const std::string& text)>;
  // Ends early when `interrupts` says so.
  static Result<NpmInstall> run(const VmDirectory& vm, const NpxCommand& command,
                                const InterruptWatch& interrupts, const Deadline& deadline,
                                const Progress& progress);
  NpmInstall(NpmInstall&& other) noexcept;
  NpmInstall& operator=(NpmInstall&&) = delete;
  ~NpmInstall();

  // Names it. Call with the VM's lock held, until the configuration names it as well.
  Status keep(const Deadline& deadline);

  const NpmPackage& package() const { return package_; }
  std::vector<std::string> argv() const;  // of the server

 private:
  NpmInstall(SshTarget target, std::string token, NpxCommand command)
      : target_(std::move(target)), token_(std::move(token)), command_(std::move(command)) {}
  std::string folder() const;  // until it is kept
  std::string name() const;    // of its folder from then on

  SshTarget target_;
  std::string token_;  // empty: nothing to remove
  NpxCommand command_;
  NpmPackage package_;
};

// Removes packages that no server of `config` uses. Call with the VM's lock held.
Status remove_unused_npm(const VmDirectory& vm, const VmConfig& config, const Deadline& deadline);

// For VMs that have lost their disk: how each server of npm's that was on it is installed again.
std::vector<std::string> npm_commands(const VmConfig& config);

}  // namespace agent_vm

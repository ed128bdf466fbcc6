// A VM of a test's own: state directory, repository, owner's configuration, free ports.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "os/process_identity.h"
#include "support/host.h"
#include "support/program.h"

namespace agent_vm::test {

struct VmOptions {
  std::string branch = "work";
  std::string memory = "1G";
  // Without a way out, whose proxy would cost every test time and memory; empty: the default.
  std::string network = "off";
  std::vector<std::string> create_arguments;
  std::string repository_settings;  // content of agent-vm.toml; create gets --trust
};

class TestVm {
 public:
  // Makes the directories and the repository; no VM yet.
  explicit TestVm(const std::string& label, VmOptions options = {});
  // Another VM of the same repository and state directory.
  TestVm(const TestVm& sibling, VmOptions options);
  // Stops and purges the VM. After a failure, or with --keep, only stops it.
  ~TestVm();
  TestVm(const TestVm&) = delete;
  TestVm& operator=(const TestVm&) = delete;

  const std::string& root() const { return root_; }
  std::string state() const { return root_ + "/state"; }
  std::string repository() const { return root_ + "/repo"; }
  std::string name() const { return "repo-" + options_.branch; }
  std::string directory() const { return state() + "/" + name(); }
  std::string workspace() const { return directory() + "/workspace"; }
  std::string file(const std::string& path) const;  // content of a file in directory()
  std::uint16_t port() const { return port_; }
  std::uint16_t ssh_port() const { return ssh_port_; }
  std::string token() const;

  // `agent-vm --state-dir <state> <what the test program passes on> arguments...` in repository().
  Ran agent(const std::vector<std::string>& arguments, const RunOptions& options = {}) const;
  // The same as a list, for Background. `global` stands in front of the verb.
  std::vector<std::string> agent_argv(const std::vector<std::string>& arguments,
                                      const std::vector<std::string>& global = {}) const;
  RunOptions agent_options(const RunOptions& options = {}) const;

  testing::AssertionResult create();
  testing::AssertionResult start();
  testing::AssertionResult create_and_start();
  // Starts it unless it runs and is well.
  testing::AssertionResult ensure_running();
  Ran stop(const std::vector<std::string>& more = {});

  // `status --json`.
  nlohmann::json status() const;
  // Empty while no supervisor has recorded that it runs.
  std::optional<ProcessIdentity> supervisor() const;
  // The supervisor's own child "qemu", "virtiofsd" or "relay", by its command line, which needs
  // nobody's help; 0: none.
  pid_t child(const std::string& name) const;
  Footprint footprint() const;

  // A shell script in the guest, as `dev` or as root, over one SSH connection that stays open.
  Ran guest(const std::string& script, std::chrono::milliseconds patience = kPatience);
  Ran guest_root(const std::string& script, std::chrono::milliseconds patience = kPatience);
  // Output of a script that must succeed, trimmed.
  std::string guest_says(const std::string& script);
  std::string root_says(const std::string& script);
  // True as soon as the condition, a command, holds in the guest. Asked there, because each
  // question from here would cost the guest's processor more than the waiting.
  bool guest_sees(const std::string& condition, std::chrono::seconds patience);
  // Ends that connection, as whatever ends the VM or its sshd does.
  void close_ssh();

  // What is known about it, for a failed test.
  std::string report() const;
  // Something is left of a run that should be gone: processes, namespaces, sockets, mounts, ports.
  std::vector<std::string> leftovers(const Footprint& before) const;

 private:
  void write_owner_configuration() const;
  std::vector<std::string> ssh_argv(const std::vector<std::string>& more) const;
  testing::AssertionResult open_ssh();
  Ran over_ssh(const std::string& command, const std::string& script,
               std::chrono::milliseconds patience);

  VmOptions options_;
  std::string root_;
  std::uint16_t port_ = 0;
  std::uint16_t ssh_port_ = 0;
  bool created_ = false;
  bool sibling_ = false;
  Child ssh_;  // the master of the connection
};

// VMs that exist in this process now, for reports.
const std::vector<TestVm*>& live_vms();

// What this machine lacks for a VM, or empty.
std::string missing_for_vms();

}  // namespace agent_vm::test

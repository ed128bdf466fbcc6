// The way out of one running VM: resolver, uplink and proxy, started and watched while the policy
// allows anything, and not there at all while it does not.
//
// Each of them may die and be started again, the more slowly the more often; the guest's requests
// fail meanwhile, because there is no other way.
#pragma once

#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "config/network_policy.h"
#include "launch/prepare.h"
#include "net/drop_counters.h"
#include "net/gateway.h"
#include "os/async.h"
#include "state/audit_log.h"
#include "state/vm_directory.h"
#include "supervise/capped_log.h"
#include "supervise/children.h"
#include "supervise/git_door.h"

namespace agent_vm {

class Egress {
 public:
  // All outlive it.
  Egress(asio::io_context& io, const VmDirectory& vm, const LaunchPlan& plan,
         const Gateway& gateway, const Fd& secrets, const Fd& git_broker)
      : io_(io),
        vm_(vm),
        plan_(plan),
        gateway_(gateway),
        secrets_(secrets),
        git_(io, vm.name(), gateway.git_door, git_broker,
             [this](const nlohmann::json& record) { keep(record); }) {}

  // Makes what runs agree with `policy`. Does not wait for the proxy: a start does not take longer
  // for it, and connections that come before it wait in the gateway's kernel.
  Status apply(const NetworkPolicy& policy);
  // Ends them, and with them every connection.
  Task<void> close();

  NetworkMode mode() const { return mode_; }
  // What `status` says about it.
  nlohmann::json status() const;
  std::vector<std::shared_ptr<SupervisedChild>> children() const;

 private:
  enum Role : std::size_t { kResolver, kUplink, kProxy };
  static constexpr std::size_t kRoles = 3;
  struct Part {
    std::shared_ptr<SupervisedChild> child;
    std::shared_ptr<CappedLog> log;
    unsigned restarts = 0;
    std::chrono::steady_clock::time_point started;
    std::string last_end;
  };

  Status open();
  Status start(Role role);
  void kill();
  void on_end(Role role, const std::shared_ptr<SupervisedChild>& child, Child::Exit exit);
  Task<void> restart_later(Role role, unsigned generation, std::chrono::milliseconds pause);
  Task<void> keep_records(Fd socket);
  Task<void> watch_drops();
  // One record of what was dropped since the last one; none for nothing.
  void record_drops();
  void keep(const nlohmann::json& record);

  asio::io_context& io_;
  const VmDirectory& vm_;
  const LaunchPlan& plan_;
  const Gateway& gateway_;
  const Fd& secrets_;
  GitDoor git_;

  NetworkMode mode_ = NetworkMode::kOff;
  std::vector<std::string> ranges_;
  unsigned generation_ = 0;  // of open(): what was begun for an earlier one does nothing
  std::array<Part, kRoles> parts_;
  std::optional<AuditLog> audit_;
  // Of this run: the guest has learnt its certificate.
  Fd authority_;
  DropCounts dropped_;
  bool closed_ = false;
  Fd logs_;
};

}  // namespace agent_vm

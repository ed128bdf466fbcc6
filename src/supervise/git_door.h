// Git over SSH for the guest: takes what it asks for at the gateway's port for git, decides, writes
// it down, and hands the connection to the broker.
//
// A connection begins with a line of JSON, {"service", "user", "host", "port", "path", "version"},
// and an answer, {"ok": true} or {"error": "..."}. After the first kind git's own protocol follows.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/fd.h"
#include "config/git_rule.h"
#include "os/async.h"

namespace agent_vm {

// The guest's first line. Refuses anything that is not exactly such a request.
Result<GitRequest> parse_git_line(std::string_view line, std::string& version);

class GitDoor {
 public:
  using Record = std::function<void(const nlohmann::json&)>;
  // All outlive it. `record` keeps a line of the audit log.
  GitDoor(asio::io_context& io, std::string vm_name, const Fd& door, const Fd& broker,
          Record record)
      : io_(io),
        vm_name_(std::move(vm_name)),
        door_(door),
        broker_(broker),
        record_(std::move(record)) {}

  // Listens while the network is on; ends every connection when it goes off. One that a changed
  // rule would refuse goes on to its end.
  Status apply(const NetworkPolicy& policy);

  // What `status` says about it: whether the broker runs, and how many connections it serves.
  nlohmann::json status() const { return {{"running", broker_runs_}, {"connections", served_}}; }

 private:
  struct Pending {
    int connection = -1;
    Event ended;
    nlohmann::json answer;
  };

  Task<void> accept(unsigned generation);
  Task<void> serve(Fd connection);
  // Of a request that is allowed: what the broker says when its ssh has ended.
  Task<Result<nlohmann::json>> run_ssh(const GitRequest& request, const std::string& version,
                                       const Fd& connection);
  Task<void> hear_broker();

  asio::io_context& io_;
  std::string vm_name_;
  const Fd& door_;
  const Fd& broker_;
  Record record_;

  NetworkPolicy policy_;
  bool open_ = false;
  bool hears_ = false;
  bool broker_runs_ = true;
  unsigned generation_ = 0;
  unsigned next_id_ = 0;
  std::size_t served_ = 0;
  std::map<unsigned, std::shared_ptr<Pending>> pending_;
};

}  // namespace agent_vm

// Starts the plan's children and watches them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "os/async.h"
#include "os/spawn.h"
#include "plan/launch_plan.h"

namespace agent_vm {

// The descriptors that a plan speaks of. Owned by whoever made them.
using DescriptorTable = std::map<DescriptorUse, int>;

// A child that runs, or has run.
class SupervisedChild {
 public:
  // `on_end` is called once, from the event loop, after the child has been reaped.
  static Result<std::shared_ptr<SupervisedChild>> start(asio::io_context& io,
                                                        const PlannedChild& plan,
                                                        const DescriptorTable& table, int gateway,
                                                        std::function<void(Child::Exit)> on_end);

  const std::string& name() const { return name_; }
  pid_t pid() const { return pid_; }
  bool running() const { return !exit_; }
  const std::optional<Child::Exit>& exit() const { return exit_; }
  void kill();
  // True when it has ended by the deadline.
  Task<bool> wait(Deadline deadline) { return ended_.wait(deadline); }

 private:
  friend Task<Result<Child::Exit>> run_helper(asio::io_context& io, std::vector<std::string> argv,
                                              Deadline deadline);
  SupervisedChild(std::string name, Child child)
      : name_(std::move(name)), pid_(child.pid()), child_(std::move(child)) {}
  static Task<void> watch(asio::io_context& io, std::shared_ptr<SupervisedChild> self,
                          std::function<void(Child::Exit)> on_end);

  std::string name_;
  pid_t pid_;
  Child child_;
  std::optional<Child::Exit> exit_;
  Event ended_;
};

// Runs a program of the host's to its end, without a jail, with what this process may do to files
// of the guest's ids: as the namespace's root. Killed at the deadline.
Task<Result<Child::Exit>> run_helper(asio::io_context& io, std::vector<std::string> argv,
                                     Deadline deadline);

// Process 1 of the VM's pid namespace. It does nothing but reap; when it ends, and it ends when
// this process does, however that happens, the kernel kills everything in the namespace (F1). Call
// once, before any other child: later children of this process are born into the namespace.
Result<Child> start_namespace_init(Fd& lifeline);

}  // namespace agent_vm

#include "supervise/children.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <csignal>

#include "base/log.h"
#include "confine/jail.h"
#include "confine/user_namespace.h"

namespace agent_vm {

Result<std::shared_ptr<SupervisedChild>> SupervisedChild::start(
    asio::io_context& io, const PlannedChild& plan, const DescriptorTable& table, int gateway,
    std::function<void(Child::Exit)> on_end) {
  SpawnSpec spec;
  spec.argv = plan.argv;
  spec.environment = plan.environment;
  for (const auto& descriptor : plan.descriptors) {
    const auto found = table.find(descriptor.use);
    if (found == table.end()) {
      return fail(ErrorKind::kInternal, "{} wants a descriptor '{}' that nobody made", plan.name,
                  to_string(descriptor.use));
    }
    spec.descriptors.push_back({found->second, descriptor.number});
  }
  Child child = TRY_CONTEXT(spawn(confined(spec, plan.jail, gateway)), "starting {}", plan.name);
  log::info("{} runs as process {}", plan.name, child.pid());
  std::shared_ptr<SupervisedChild> self(new SupervisedChild(plan.name, std::move(child)));
  start_detached(io, watch(io, self, std::move(on_end)));
  return self;
}

Task<void> SupervisedChild::watch(asio::io_context& io, std::shared_ptr<SupervisedChild> self,
                                  std::function<void(Child::Exit)> on_end) {
  // The loop gets a descriptor of its own; the child's keeps its owner.
  asio::posix::stream_descriptor pidfd(io, ::fcntl(self->child_.pidfd(), F_DUPFD_CLOEXEC, 3));
  co_await pidfd.async_wait(asio::posix::stream_descriptor::wait_read,
                            asio::as_tuple(asio::use_awaitable));
  const auto exit = self->child_.wait();
  self->exit_ = exit.value_or(Child::Exit{});
  log::info("{} {}", self->name_, self->exit_->describe());
  self->ended_.set();
  if (on_end) on_end(*self->exit_);
}

void SupervisedChild::kill() {
  if (running()) static_cast<void>(child_.signal(SIGKILL));
}

Task<Result<Child::Exit>> run_helper(asio::io_context& io, std::vector<std::string> argv,
                                     Deadline deadline) {
  SpawnSpec spec;
  spec.argv = std::move(argv);
  spec.environment = host_environment();
  spec.working_directory = "/";
  // This process has its powers without being root, and an exec would take them.
  spec.in_child = [] { return become_in_namespace(kGuestRoot); };
  CO_TRY(Child child, spawn(spec));
  std::string name = spec.argv[0];
  const std::shared_ptr<SupervisedChild> self(
      new SupervisedChild(std::move(name), std::move(child)));
  std::function<void(Child::Exit)> nobody;
  start_detached(io, SupervisedChild::watch(io, self, std::move(nobody)));
  if (!co_await self->wait(deadline)) {
    self->kill();
    co_await self->wait(Deadline::in(std::chrono::seconds(5)));
    CO_FAIL(ErrorKind::kTimeout, "{} did not end in time", self->name());
  }
  Child::Exit exit = self->exit().value_or(Child::Exit{});
  co_return exit;
}

Result<Child> start_namespace_init(Fd& lifeline) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  const Fd read_end(ends[0]);
  lifeline = Fd(ends[1]);
  if (::unshare(CLONE_NEWPID) != 0) return fail_errno(errno, "cannot make a pid namespace");
  SpawnSpec spec;
  spec.argv = {"namespace-init"};
  spec.descriptors = {{read_end.get(), 3}};
  spec.new_session = true;
  spec.main_instead_of_exec = [] {
    ::prctl(PR_SET_NAME, "agent-vm-init");
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // Orphans of the namespace are ours; the kernel reaps children whose parent ignores SIGCHLD.
    static_cast<void>(::signal(SIGCHLD, SIG_IGN));
    // Nobody ever writes: this returns when the supervisor is gone, also if it went before the line
    // about PDEATHSIG was reached.
    char byte = 0;
    while (::read(3, &byte, 1) < 0 && errno == EINTR) {
    }
    return 0;
  };
  return spawn(spec);
}

}  // namespace agent_vm

// Saving a running VM, with all that runs in it.
//
// QEMU 7.2 cannot save a share, so the guest lets it go first: agent-vm-identity --rest stops the
// agent service and unmounts /workspace, the share is unplugged, and virtiofsd ends. From then on
// the machine can be written down as a template is. Whatever fails on the way is undone in reverse
// order.
#include <fcntl.h>

#include "base/log.h"
#include "base/text.h"
#include "os/files.h"
#include "supervise/identity_program.h"
#include "supervise/supervisor.h"

namespace agent_vm {

using nlohmann::json;
using std::chrono::seconds;

namespace {
// What taking the share up again may take, whatever of the deadline is left.
constexpr seconds kWakePatience{60};
}  // namespace

Task<Status> Supervisor::rest(bool force, Deadline deadline) {
  std::vector<std::string> arguments{"--rest"};
  if (force) arguments.emplace_back("--force");
  std::string nothing;
  CO_TRY(const json steps, co_await run_identity_program(machine_->agent(), std::move(arguments),
                                                         std::move(nothing), deadline));
  log::info("rest: {}", dump(steps));
  co_return Status();
}

Task<Status> Supervisor::unplug_share(Deadline deadline) {
  share_is_out_ = true;
  std::string device = "share0";
  CO_CHECK(co_await machine_->unplug(std::move(device), deadline));
  json socket = {{"id", "share-socket"}};
  CO_TRY(const json removed,
         co_await machine_->qmp().execute("chardev-remove", std::move(socket), deadline));
  // It ends when its connection does.
  if (!co_await virtiofsd_->wait(deadline.sooner(seconds(5)))) {
    virtiofsd_->kill();
    co_await virtiofsd_->wait(Deadline::in(seconds(5)));
  }
  co_return Status();
}

Task<Status> Supervisor::write_suspended(SuspendedDraft& draft, Deadline deadline) {
  CO_TRY(const Fd devices, draft.create(suspended_files::kDevices));
  CO_TRY(const Fd pages, draft.create(suspended_files::kPages));
  CO_TRY(const Fd map, draft.create(suspended_files::kMap));
  CO_TRY(const Fd root, draft.create(suspended_files::kRoot));
  const MachineFiles into{
      .devices = devices.get(), .pages = pages.get(), .map = map.get(), .root = root.get()};
  CO_TRY(const auto packed, co_await write_machine(*machine_, storage(), into, deadline));
  log::info("{} of memory saved", format_size(packed));
  if (const int below = layer_below_root(); below >= 0) {
    // The template may be replaced while the VM is suspended.
    CO_TRY(const Fd base, draft.create(suspended_files::kBase));
    CO_CHECK(copy_file(below, base.get()));
  }
  co_return Status();
}

Task<Status> Supervisor::save(Deadline deadline) {
  CO_TRY(auto draft, SuspendedDraft::begin(vm_.fd()));
  CO_CHECK(co_await machine_->stop_processors(deadline));
  Status done = co_await write_suspended(draft, deadline);
  if (done) {
    SuspendedMachine machine = prepared_.machine;
    machine.at = utc_now();
    done = draft.commit(machine);
  }
  if (!done) draft.discard();
  co_return done;
}

Task<Status> Supervisor::go_on(Deadline deadline) {
  if (paused_) CO_CHECK(co_await machine_->run_processors(deadline));
  if (share_is_out_) {
    share_is_out_ = false;
    CO_CHECK(start_share());
    CO_CHECK(co_await plug_share(deadline));
  }
  std::string mode = "--go-on";
  CO_CHECK(co_await give_identity(std::move(mode), deadline));
  state_ = State::kRunning;
  co_return Status();
}

Task<Result<json>> Supervisor::suspend(bool force, Deadline deadline) {
  if (state_ != State::kRunning || paused_)
    CO_FAIL("VM '{}' is starting, paused or ending, and cannot be saved now", vm_.name());
  state_ = State::kSuspending;
  Status done = co_await rest(force, deadline);
  if (done) done = co_await unplug_share(deadline);
  if (done) done = co_await save(deadline);
  if (!done) {
    const Status again = co_await go_on(Deadline::in(kWakePatience));
    if (!again && !ended_.is_set())
      end_with({true,
                fmt::format("it could not be suspended ({}), nor go on: {}", done.error().message(),
                            again.error().message()),
                {}});
    co_return tl::unexpected(done.error());
  }
  end_with({false, "suspended", {}});
  json nothing = json::object();
  co_return nothing;
}

// The share is out: nobody writes to the workspace. As the VM's root, whose files they may be.
Task<Status> Supervisor::copy_workspace(Deadline deadline) {
  std::vector<std::string> argv{
      "cp",
      "--archive",
      "--reflink=auto",
      "--one-file-system",
      "--",
      config_.workspace_path,
      fmt::format("{}/{}/{}", vm_.path(), kForkFolder, vm_files::kWorkspace)};
  CO_TRY(const auto exit, co_await run_helper(io_, std::move(argv), deadline));
  if (exit.code != 0) CO_FAIL("the workspace could not be copied: cp {}", exit.describe());
  co_return Status();
}

Task<Status> Supervisor::copy_all(int folder, SuspendedDraft& draft, Deadline deadline) {
  CO_TRY(const Fd disk, open_beneath(folder, kDiskFile, O_RDWR | O_CREAT | O_EXCL, 0600));
  const auto begin = std::chrono::steady_clock::now();
  CO_CHECK(co_await machine_->stop_processors(deadline));
  CO_CHECK(co_await write_suspended(draft, deadline));
  CO_CHECK(copy_file(disk_.get(), disk.get()));
  CO_CHECK(co_await machine_->run_processors(deadline));
  stood_ = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                                 begin);
  CO_CHECK(co_await copy_workspace(deadline));
  co_return Status();
}

Task<Result<json>> Supervisor::fork(bool force, Deadline deadline) {
  if (state_ != State::kRunning || paused_)
    CO_FAIL("VM '{}' is starting, paused or ending, and cannot be forked now", vm_.name());
  CO_CHECK(remove_tree_at(vm_.fd(), kForkFolder));
  CO_CHECK(make_directory_at(vm_.fd(), kForkFolder, 0700));
  CO_TRY(const Fd folder, open_beneath(vm_.fd(), kForkFolder, O_RDONLY | O_DIRECTORY));
  CO_TRY(auto draft, SuspendedDraft::begin(folder.get()));
  state_ = State::kForking;
  Status done = co_await rest(force, deadline);
  if (done) done = co_await unplug_share(deadline);
  if (done) done = co_await copy_all(folder.get(), draft, deadline);
  const Status again = co_await go_on(Deadline::in(kWakePatience));
  if (!again && !ended_.is_set())
    end_with(
        {true, fmt::format("it does not go on after a fork: {}", again.error().message()), {}});
  if (done) {
    SuspendedMachine machine = prepared_.machine;
    machine.at = utc_now();
    machine.is_other = true;
    done = draft.commit(machine);
  }
  if (!done) {
    static_cast<void>(remove_tree_at(vm_.fd(), kForkFolder));
    co_return tl::unexpected(done.error());
  }
  json result = {{"stood_ms", stood_.count()}};
  co_return result;
}

}  // namespace agent_vm

// The roads to a guest whose agent answers (a boot, a template, a suspended VM), and from there to
// one that has its identity and whose endpoint has answered.
#include <fcntl.h>

#include "base/log.h"
#include "control/http_probe.h"
#include "image/memory_pages.h"
#include "os/files.h"
#include "supervise/guest_memory.h"
#include "supervise/identity_document.h"
#include "supervise/identity_program.h"
#include "supervise/share.h"
#include "supervise/supervisor.h"
#include "supervise/template.h"

namespace agent_vm {

using nlohmann::json;
using std::chrono::seconds;

namespace {

// A resume takes a second; a guest that is silent for so long does not fit this machine.
constexpr seconds kResumePatience{20};

Error boot_timeout(std::vector<std::string> console) {
  return Error(ErrorKind::kTimeout, "the guest did not boot in time: its agent never answered")
      .with_evidence(std::move(console));
}

Status check_health(const Result<HttpAnswer>& answer) {
  if (!answer) return tl::unexpected(Error(answer.error()).within("the MCP endpoint"));
  if (answer->status != 200)
    return fail("the MCP endpoint answers with status {} instead of 200", answer->status);
  return {};
}

}  // namespace

Task<Status> Supervisor::bring_up_guest(Deadline deadline, const Progress& progress) {
  bool boots = !prepared_.warm && !prepared_.suspended;
  // There is no other road: a boot would give up what is saved.
  if (prepared_.suspended) CO_CHECK(co_await wake_guest(deadline));
  if (prepared_.warm) {
    may_boot_instead_ = true;
    Status resumed = co_await resume_guest(deadline.sooner(kResumePatience));
    may_boot_instead_ = false;
    if (ended_.is_set()) co_return tl::unexpected(why_ended());
    if (resumed && !machine_->qemu().running()) resumed = fail("QEMU ended");
    if (!resumed) {
      boots = true;
      auto note = fmt::format(
          "the template of this machine could not be used ({}), so the guest "
          "boots, and leaves a new one",
          resumed.error().message());
      log::warn("{}", note);
      notes_.push_back(std::move(note));
      if (machine_) co_await machine_->abandon();
      CO_CHECK(clear_guest_memory(memory_.get(), prepared_.plan.memory_bytes));
    }
  }
  booted_ = boots;
  if (boots) CO_CHECK(co_await boot_guest(deadline, progress));
  // QEMU alone keeps the card, so that the interface ends with it.
  gateway_.tap.reset();
  co_return Status();
}

Task<Status> Supervisor::load_guest(const PlannedChild& plan, SavedGuest from, Deadline deadline) {
  CO_CHECK(start_machine(plan, deadline));
  // While QEMU starts.
  CO_CHECK(unpack_memory(from.pages, from.map, memory_.get(), prepared_.plan.memory_bytes));
  phase("memory");
  CO_CHECK(co_await machine_->connect(deadline));
  phase("qmp");
  // QEMU reads from its offset, which must be the beginning.
  CO_TRY(const Fd devices, reopen(from.devices, O_RDONLY));
  CO_CHECK(co_await machine_->load_devices(devices.get(), deadline));
  phase("devices");
  co_return Status();
}

Task<Status> Supervisor::run_loaded_guest(Deadline deadline) {
  CO_CHECK(co_await machine_->run_processors(deadline));
  CO_CHECK(co_await machine_->agent().synchronise(deadline));
  machine_->agent_open().set();
  phase("guest agent");
  co_return Status();
}

Task<Status> Supervisor::resume_guest(Deadline deadline) {
  const Template& from = *prepared_.warm;
  const SavedGuest saved{from.pages.get(), from.map.get(), from.devices.get()};
  CO_CHECK(co_await load_guest(prepared_.plan.resumed_qemu, saved, deadline));
  co_return co_await run_loaded_guest(deadline);
}

Task<Status> Supervisor::wake_guest(Deadline deadline) {
  const Suspended& from = *prepared_.suspended;
  const SavedGuest saved{from.file(suspended_files::kPages), from.file(suspended_files::kMap),
                         from.file(suspended_files::kDevices)};
  CO_CHECK(co_await load_guest(prepared_.plan.woken_qemu, saved, deadline));
  // The guest's next instruction may change its disk, which the saved guest would not know of.
  CO_CHECK(discard_suspended(vm_));
  co_return co_await run_loaded_guest(deadline);
}

Task<Status> Supervisor::boot_guest(Deadline deadline, const Progress& progress) {
  progress("boot", "the guest boots");
  CO_CHECK(start_machine(prepared_.plan.qemu, deadline));
  CO_CHECK(co_await machine_->connect(deadline.sooner(kQmpPatience)));
  phase("qmp");
  CO_CHECK(co_await machine_->run_processors(deadline.sooner(kQmpPatience)));
  CO_CHECK(co_await await_guest(deadline, progress));
  if (prepared_.makes_template || prepared_.warm) co_await leave_template(deadline, progress);
  co_return Status();
}

Task<Status> Supervisor::await_guest(Deadline deadline, const Progress& progress) {
  const auto begin = std::chrono::steady_clock::now();
  // Wakes once a second only to show that time passes.
  while (!co_await machine_->agent_open().wait(deadline.sooner(seconds(1)))) {
    if (deadline.expired()) {
      co_return tl::unexpected(boot_timeout(console_->tail(kEvidenceLines)));
    }
    const auto passed =
        std::chrono::duration_cast<seconds>(std::chrono::steady_clock::now() - begin);
    progress("boot", fmt::format("the guest boots ({} s)", passed.count()));
  }
  if (ended_.is_set()) co_return tl::unexpected(why_ended());
  phase("guest agent");
  co_return Status();
}

Task<void> Supervisor::leave_template(Deadline deadline, const Progress& progress) {
  progress("template", "keeping the booted guest as a template for the next start");
  TemplateSource source{.image_directory = prepared_.image_directory,
                        .key = prepared_.template_key,
                        .storage = storage()};
  const auto left = co_await save_template(*machine_, std::move(source), deadline);
  if (!left) {
    log::warn("no template was made: {}", left.error().message());
    if (!ended_.is_set())
      notes_.push_back(fmt::format("no template was made: {}", left.error().message()));
  }
  phase("template");
}

MachineStorage Supervisor::storage() const {
  return {
      .memory = memory_.get(), .memory_bytes = prepared_.plan.memory_bytes, .root = root_.get()};
}

Task<Status> Supervisor::plug_share(Deadline deadline) {
  CO_CHECK(co_await machine_->qmp().pass_descriptor("share", share_connection_.get(), deadline));
  share_connection_.reset();
  json chardev = {
      {"id", "share-socket"},
      {"backend",
       {{"type", "socket"},
        {"data", {{"addr", {{"type", "fd"}, {"data", {{"str", "share"}}}}}, {"server", false}}}}}};
  CO_TRY(const json added,
         co_await machine_->qmp().execute("chardev-add", std::move(chardev), deadline));
  json device = {{"driver", "vhost-user-fs-pci"},
                 {"id", "share0"},
                 {"chardev", "share-socket"},
                 {"tag", kShareTag},
                 {"bus", kSharePort},
                 {"queue-size", 1024}};
  CO_TRY(const json plugged,
         co_await machine_->qmp().execute("device_add", std::move(device), deadline));
  co_return Status();
}

Task<Status> Supervisor::plug_disk(Deadline deadline) {
  json device = disk_device();
  CO_TRY(const json plugged,
         co_await machine_->qmp().execute("device_add", std::move(device), deadline));
  phase("devices plugged");
  co_return Status();
}

Task<Status> Supervisor::give_identity(std::string mode, Deadline deadline) {
  CO_TRY(const json document, make_identity_document(vm_, config_, prepared_.plan.mac_address));
  std::vector<std::string> arguments;
  if (!mode.empty()) arguments.push_back(std::move(mode));
  std::string input = document.dump();
  CO_TRY(identity_steps_, co_await run_identity_program(machine_->agent(), std::move(arguments),
                                                        std::move(input), deadline));
  log::info("identity: {}", dump(identity_steps_));
  phase("identity");
  co_return Status();
}

Task<Status> Supervisor::confirm_endpoint(Deadline deadline) {
  const auto& plan = prepared_.plan;
  std::string host = fmt::format("127.0.0.1:{}", plan.mcp_port);
  const auto answer = co_await http_get_async(plan.bind_address, plan.mcp_port, std::move(host),
                                              "/health", "", deadline);
  CO_CHECK(check_health(answer));
  phase("mcp endpoint");
  co_return Status();
}

Task<void> Supervisor::renew_journal() {
  // The journal names the boot in each entry, and journalctl looks for the present one. Nobody
  // waits for that, and the first command is not to share its processor with it.
  constexpr seconds kTheFirstCommand{2};
  if (co_await ended_.wait(Deadline::in(kTheFirstCommand))) co_return;
  // The file is the identity step's, which gave the guest a boot id of its own.
  constexpr const char* kScript =
      "! test -e /run/agent-vm/boot-id || systemctl restart systemd-journald.service";
  const auto done = co_await machine_->agent().run_script(kScript, "", Deadline::in(seconds(30)));
  if (!done) log::warn("the guest's journal may name another boot: {}", done.error().message());
}

}  // namespace agent_vm

#include "supervise/supervisor.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <csignal>

#include "base/log.h"
#include "base/text.h"
#include "control/http_probe.h"
#include "control/protocol.h"
#include "image/memory_pages.h"
#include "net/listener.h"
#include "os/files.h"
#include "supervise/boot_profile.h"
#include "supervise/guest_memory.h"
#include "supervise/guest_status.h"
#include "supervise/identity_document.h"
#include "supervise/identity_program.h"
#include "supervise/mcp_reload.h"
#include "supervise/share.h"
#include "supervise/template.h"

namespace agent_vm {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr std::size_t kLogBytes = 4U << 20U;
constexpr std::size_t kEvidenceLines = 15;
constexpr std::size_t kPanicLines = 100;
constexpr seconds kQmpPatience{10};
// A resume takes a second; a guest that is silent for so long does not fit this machine.
constexpr seconds kResumePatience{20};
constexpr int kMostRelayRestarts = 5;
// What a VM that was paused by a full file system wants to find there before it goes on.
constexpr std::uint64_t kRoom = 64U << 20U;

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

Supervisor::Supervisor(asio::io_context& io, const VmDirectory& vm, const VmConfig& config,
                       PreparedStart prepared)
    : io_(io), vm_(vm), config_(config), prepared_(std::move(prepared)), notes_(prepared_.notes) {}

void Supervisor::phase(const char* name) {
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::duration<double, std::milli> since = now - started_;
  phases_.push_back({{"name", name}, {"end_ns", now.time_since_epoch().count()}});
  log::info("start: {} after {:.0f} ms", name, since.count());
}

void Supervisor::end_with(EndCause cause) {
  if (!cause_) {
    log::info("the VM ends: {}", cause.reason);
    cause_ = std::move(cause);
  }
  ended_.set();
  // Whoever waits for an answer of the guest or of QEMU waits no longer.
  if (machine_) machine_->agent_open().set();
}

Error Supervisor::why_ended() const {
  return Error(ErrorKind::kFailed, cause_ ? cause_->reason : "the VM ended")
      .with_evidence(cause_ ? cause_->evidence : std::vector<std::string>());
}

Status Supervisor::prepare_host() {
  const auto& plan = prepared_.plan;
  // Bound before anything else exists, and held: no port is found taken when the guest is up.
  ssh_listener_ = TRY(listen_tcp(plan.bind_address, plan.ssh_port));
  mcp_listener_ = TRY(listen_tcp(plan.bind_address, plan.mcp_port));
  mcp_socket_ = TRY(listen_unix(vm_.fd(), kMcpSocketFile));
  phase("ports");
  disk_ = TRY(open_beneath(vm_.fd(), kDiskFile, O_RDWR));
  image_ = Fd(::open(prepared_.image_root.c_str(), O_RDONLY | O_CLOEXEC));
  if (!image_) return fail_errno(errno, "cannot open {}", prepared_.image_root);
  memory_ = TRY(make_guest_memory(vm_, plan.memory_bytes));
  init_ = TRY(start_namespace_init(lifeline_));
  gateway_ = TRY(make_gateway());
  phase("gateway");
  return {};
}

Status Supervisor::open_logs() {
  TRY(make_directory_at(vm_.fd(), vm_files::kLogs, 0700));
  const Fd logs = TRY(open_beneath(vm_.fd(), vm_files::kLogs, O_RDONLY | O_DIRECTORY));
  console_ = std::make_shared<CappedLog>(logs.get(), "console.log", kLogBytes);
  qemu_log_ = std::make_shared<CappedLog>(logs.get(), "qemu.log", kLogBytes);
  virtiofsd_log_ = std::make_shared<CappedLog>(logs.get(), "virtiofsd.log", kLogBytes);
  relay_log_ = std::make_shared<CappedLog>(logs.get(), "relay.log", kLogBytes);
  return {};
}

Status Supervisor::start_helpers() {
  auto activity = TRY(make_socket_pair(SOCK_SEQPACKET));
  activity_writer_ = std::move(activity.theirs);
  start_detached(io_, follow_activity(std::move(activity.ours)));
  TRY(start_relay());
  return start_share();
}

Status Supervisor::start_share() {
  const Fd words = TRY(log_channel(io_, virtiofsd_log_));
  ShareSocket share = TRY(make_share_socket(vm_.fd()));
  share_connection_ = std::move(share.connected);
  virtiofsd_ = TRY(SupervisedChild::start(
      io_, prepared_.plan.virtiofsd,
      {{DescriptorUse::kLog, words.get()}, {DescriptorUse::kShareListener, share.listener.get()}},
      -1, [this](Child::Exit exit) { start_detached(io_, on_virtiofsd_end(exit)); }));
  phase("virtiofsd");
  return {};
}

int Supervisor::layer_below_root() const {
  if (prepared_.warm) return prepared_.warm->root.get();
  const bool saved = prepared_.suspended && prepared_.suspended->has_base();
  return saved ? prepared_.suspended->file(suspended_files::kBase) : -1;
}

Status Supervisor::start_machine(const PlannedChild& plan, const Deadline& deadline) {
  root_ = TRY(make_root_overlay(vm_, prepared_, deadline));
  DescriptorTable files{{DescriptorUse::kTap, gateway_.tap.get()},
                        {DescriptorUse::kRoot, root_.get()},
                        {DescriptorUse::kImage, image_.get()},
                        {DescriptorUse::kDisk, disk_.get()}};
  if (const int layer = layer_below_root(); layer >= 0) files[DescriptorUse::kTemplateRoot] = layer;
  machine_ = TRY(Machine::start(
      io_, plan, std::move(files), {console_, qemu_log_},
      {[this](Child::Exit exit) { on_qemu_end(exit); },
       [this](const std::string& name, const json& data) { on_qmp_event(name, data); }}));
  phase("qemu");
  return {};
}

Status Supervisor::start_relay() {
  const Fd words = TRY(log_channel(io_, relay_log_));
  relay_ = TRY(SupervisedChild::start(
      io_, prepared_.plan.relay,
      {{DescriptorUse::kLog, words.get()},
       {DescriptorUse::kSshListener, ssh_listener_.get()},
       {DescriptorUse::kMcpListener, mcp_listener_.get()},
       {DescriptorUse::kMcpSocket, mcp_socket_.get()},
       {DescriptorUse::kActivity, activity_writer_.get()}},
      gateway_.network_namespace.get(), [this](Child::Exit exit) {
        // It holds no state, and the listeners are ours: start another.
        if (ended_.is_set()) return;
        log::warn("the relay {}", exit.describe());
        if (++relay_restarts_ <= kMostRelayRestarts && start_relay()) return;
        end_with({true, fmt::format("the port relay {} again and again", exit.describe()),
                  relay_log_->tail(kEvidenceLines)});
      }));
  return {};
}

Task<void> Supervisor::on_virtiofsd_end(Child::Exit exit) {
  if (share_is_out_) co_return;
  // It ends by itself when QEMU closes the connection, and is often seen to end first: then QEMU's
  // end, a moment later, is the cause.
  if (exit.code == 0) co_await ended_.wait(Deadline::in(seconds(1)));
  EndCause cause{true, fmt::format("virtiofsd {}: the workspace is gone", exit.describe()),
                 virtiofsd_log_->tail(kEvidenceLines)};
  end_with(std::move(cause));
}

void Supervisor::on_qemu_end(Child::Exit exit) {
  if (may_boot_instead_) return;
  const std::string& shutdown_reason = machine_->shutdown_reason();
  EndCause cause;
  // A panic prints many lines of registers behind the one that says what it was.
  cause.evidence = console_->tail(kPanicLines);
  const auto panic = std::ranges::find_if(cause.evidence, [](const std::string& line) {
    return line.find("Kernel panic") != std::string::npos;
  });
  const bool panicked = panic != cause.evidence.end();
  const auto keep = static_cast<std::ptrdiff_t>(kEvidenceLines);
  if (panicked) {
    cause.evidence.erase(cause.evidence.begin(), panic);
    if (std::ssize(cause.evidence) > keep) cause.evidence.resize(kEvidenceLines);
  } else if (std::ssize(cause.evidence) > keep) {
    cause.evidence.erase(cause.evidence.begin(), cause.evidence.end() - keep);
  }
  if (panicked) {
    cause = {true, "the guest's kernel panicked", std::move(cause.evidence)};
  } else if (exit.code == 0 && shutdown_reason == "guest-shutdown") {
    cause = {false, "the guest powered off", {}};
  } else if (exit.code == 0 && shutdown_reason == "guest-reset") {
    cause = {false, "the guest asked for a reboot; start it again", {}};
  } else if (exit.code == 0 && shutdown_reason == "host-qmp-quit") {
    cause = {false, "stopped", {}};
  } else {
    auto last_words = qemu_log_->tail(5);
    last_words.insert(last_words.end(), cause.evidence.begin(), cause.evidence.end());
    cause = {true, fmt::format("QEMU {}", exit.describe()), std::move(last_words)};
  }
  end_with(std::move(cause));
}

void Supervisor::on_qmp_event(const std::string& name, const json& data) {
  const auto text = [&](const char* member) {
    return data.contains(member) && data[member].is_string() ? data[member].get<std::string>() : "";
  };
  if (name == "STOP") {
    paused_ = true;
  } else if (name == "RESUME") {
    paused_ = false;
    paused_why_.clear();
  } else if (name == "BLOCK_IO_ERROR") {
    paused_why_ = fmt::format("the disk cannot be written: {}", text("reason"));
    log::warn("{}", paused_why_);
    if (data.value("nospace", json()) == true && !std::exchange(waits_for_room_, true))
      start_detached(io_, go_on_when_there_is_room());
  }
}

Task<void> Supervisor::go_on_when_there_is_room() {
  // The kernel tells nobody that a file system has room again.
  while (!co_await ended_.wait(Deadline::in(seconds(1)))) {
    struct statvfs disk {};
    if (::fstatvfs(disk_.get(), &disk) != 0 || disk.f_bavail * disk.f_frsize < kRoom) continue;
    log::info("there is room for the disk again: the VM goes on");
    waits_for_room_ = false;  // should it be full at once again
    json nothing = json::object();
    const auto done =
        co_await machine_->qmp().execute("cont", std::move(nothing), Deadline::in(kQmpPatience));
    if (!done) log::warn("the VM does not go on: {}", done.error().message());
    co_return;
  }
}

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

Task<Status> Supervisor::go(Deadline deadline, const Progress& progress) {
  phase("supervisor and plan");
  progress("host", "preparing namespaces, ports and the share");
  CO_CHECK(prepare_host());
  CO_CHECK(open_logs());
  CO_CHECK(start_helpers());
  // Beside the guest, which does not wait for it.
  CO_CHECK(egress_.apply(config_.network));
  CO_CHECK(co_await bring_up_guest(deadline, progress));
  // The login that begins at this step would be one of those that a woken guest ends first.
  if (prepared_.suspended)
    progress("wake", "the guest goes on");
  else
    progress(kIdentityStep, "giving the guest its identity");
  CO_CHECK(co_await plug_share(deadline));
  if (!prepared_.suspended) CO_CHECK(co_await plug_disk(deadline));
  std::string mode;
  if (prepared_.suspended) mode = prepared_.suspended->machine.is_other ? "--become" : "--wake";
  CO_CHECK(co_await give_identity(std::move(mode), deadline));
  progress("mcp", "asking the MCP endpoint");
  CO_CHECK(co_await confirm_endpoint(deadline));
  co_return Status();
}

Task<Result<json>> Supervisor::start(Deadline deadline, Progress progress) {
  const Status done = co_await go(deadline, progress);
  if (done && !ended_.is_set()) {
    state_ = State::kRunning;
    json result = {
        {"phases", phases_}, {"identity", identity_steps_}, {"booted", booted_}, {"notes", notes_}};
    // A guest that goes on as itself is in the boot that its journal knows.
    if (!prepared_.suspended || prepared_.suspended->machine.is_other)
      start_detached(io_, renew_journal());
    co_return result;
  }
  // A cause (QEMU died, the command was interrupted) explains more than the call that it broke.
  Error error = ended_.is_set() ? why_ended() : done.error();
  if (error.evidence().empty() && console_)
    error = std::move(error).with_evidence(console_->tail(kEvidenceLines));
  if (error.kind() == ErrorKind::kTimeout && error.hint().empty())
    error = std::move(error).with_hint("give it longer with: agent-vm --timeout SECONDS start");
  end_with({true, error.message(), error.evidence()});
  co_await tear_down();
  co_return tl::unexpected(std::move(error));
}

Task<void> Supervisor::run_to_end() {
  co_await ended_.wait(Deadline::never());
  co_await tear_down();
}

Task<std::string> Supervisor::shut_down(milliseconds grace) {
  state_ = State::kStopping;
  if (machine_ && machine_->qemu().running()) {
    // Through the agent, because a guest needs no ACPI daemon for it; the button as well, because
    // the agent may be the thing that is broken.
    if (machine_->agent_open().is_set()) static_cast<void>(co_await machine_->agent().power_down());
    json none = json::object();
    static_cast<void>(co_await machine_->qmp().execute("system_powerdown", std::move(none),
                                                       Deadline::in(seconds(1))));
    if (co_await machine_->qemu().wait(Deadline::in(grace))) co_return "guest";
    json nothing = json::object();
    static_cast<void>(
        co_await machine_->qmp().execute("quit", std::move(nothing), Deadline::in(seconds(1))));
    if (co_await machine_->qemu().wait(Deadline::in(seconds(2)))) co_return "qmp";
    end_with({false, "stopped by force: neither the guest nor QEMU reacted in time", {}});
    machine_->qemu().kill();
    co_await machine_->qemu().wait(Deadline::in(seconds(2)));
    co_return "kill";
  }
  end_with({false, "stopped", {}});
  co_return "guest";
}

Task<void> Supervisor::tear_down() {
  state_ = State::kStopping;
  ended_.set();
  // Reverse order of the start.
  if (machine_) {
    machine_->qemu().kill();
    co_await machine_->qemu().wait(Deadline::in(seconds(5)));
  }
  for (auto* child : {&virtiofsd_, &relay_}) {
    if (!*child) continue;
    (*child)->kill();
    co_await (*child)->wait(Deadline::in(seconds(5)));
  }
  co_await egress_.close();
  if (machine_) machine_->close_channels();
  lifeline_.reset();
  if (init_) {
    static_cast<void>(init_.signal(SIGKILL));
    static_cast<void>(init_.wait(Deadline::in(seconds(5))));
  }
  ssh_listener_.reset();
  mcp_listener_.reset();
  mcp_socket_.reset();
  static_cast<void>(::unlinkat(vm_.fd(), kMcpSocketFile, 0));
  record_end();
  torn_down_.set();
}

Status Supervisor::apply_network() {
  if (ended_.is_set()) return fail(ErrorKind::kNotRunning, "the VM ends");
  return egress_.apply(TRY(vm_.read_config()).network);
}

void Supervisor::record_end() {
  const json record = {{"schema", 1},
                       {"ended_at", utc_now()},
                       {"crashed", cause_ && cause_->crashed},
                       {"reason", cause_ ? cause_->reason : "stopped"},
                       {"evidence", cause_ ? cause_->evidence : std::vector<std::string>()}};
  if (const auto written = write_file_atomic(vm_.fd(), kLastRunFile, dump(record) + "\n", 0600);
      !written) {
    log::error("{}", written.error().message());
  }
  if (const auto removed = vm_.remove_run(); !removed) log::error("{}", removed.error().message());
}

Task<void> Supervisor::follow_activity(Fd socket) {
  asio::posix::stream_descriptor descriptor(io_, socket.release());
  std::array<char, 32> text{};
  while (true) {
    const auto [error, got] = co_await descriptor.async_read_some(
        asio::buffer(text), asio::as_tuple(asio::use_awaitable));
    if (error) co_return;
    connections_ =
        static_cast<unsigned>(parse_unsigned(std::string_view(text.data(), got)).value_or(0));
    last_activity_ = std::chrono::steady_clock::now();
  }
}

Task<json> Supervisor::guest_status(Deadline deadline) {
  if (asking_) {
    const auto asked = asking_;
    if (co_await asked->wait(deadline)) co_return guest_answer_;
    json late = {{"reachable", false}, {"error", "the guest agent did not answer in time"}};
    co_return late;
  }
  const auto asking = std::make_shared<Event>();
  asking_ = asking;
  guest_answer_ = co_await ask_guest(machine_->agent(), deadline);
  asking_.reset();
  asking->set();
  co_return guest_answer_;
}

Task<json> Supervisor::status(Deadline deadline, bool with_guest) {
  const auto now = std::chrono::steady_clock::now();
  const auto seconds_since = [&](auto then) {
    return std::chrono::duration_cast<seconds>(now - then).count();
  };
  const char* state = state_ == State::kStarting     ? "starting"
                      : state_ == State::kStopping   ? "stopping"
                      : state_ == State::kSuspending ? "suspending"
                      : state_ == State::kForking    ? "forking"
                      : paused_                      ? "paused"
                                                     : "running";
  json status = {{"state", state},
                 {"state_reason", paused_ ? paused_why_ : ""},
                 {"uptime_seconds", seconds_since(started_)},
                 {"connections", connections_},
                 {"idle_seconds", connections_ > 0 ? 0 : seconds_since(last_activity_)},
                 {"accelerator", to_string(prepared_.accelerator)},
                 {"network", to_string(egress_.mode())},
                 {"egress", egress_.status()},
                 {"notes", notes_}};
  json processes = json::object();
  std::vector<const SupervisedChild*> children{virtiofsd_.get(), relay_.get()};
  for (const auto& child : egress_.children()) children.push_back(child.get());
  if (machine_) children.push_back(&machine_->qemu());
  for (const auto* child : children) {
    if (child != nullptr && child->running())
      processes[child->name()] = process_figures(child->pid());
  }
  status["processes"] = std::move(processes);
  if (with_guest && state_ == State::kRunning && !paused_) {
    status["guest"] = co_await guest_status(deadline);
  }
  co_return status;
}

Task<Result<json>> Supervisor::boot_profile(Deadline deadline) {
  if (state_ != State::kRunning || paused_) {
    CO_FAIL(ErrorKind::kNotRunning, "VM {} is not running", vm_.name());
  }
  co_return co_await ask_boot_profile(machine_->agent(), deadline);
}

Task<Result<json>> Supervisor::reload_mcp(Deadline deadline) {
  if (state_ != State::kRunning || paused_) {
    CO_FAIL(ErrorKind::kNotRunning, "VM {} is not running", vm_.name());
  }
  CO_TRY(const VmConfig now, vm_.read_config());
  CO_CHECK(co_await agent_vm::reload_mcp(machine_->agent(), reloadable(config_, now), deadline));
  json result = json::object();
  co_return result;
}

}  // namespace agent_vm

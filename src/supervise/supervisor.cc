#include "supervise/supervisor.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "base/log.h"
#include "control/protocol.h"
#include "net/listener.h"
#include "os/files.h"
#include "supervise/guest_memory.h"
#include "supervise/share.h"
#include "supervise/template.h"

namespace agent_vm {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr std::size_t kLogBytes = 4U << 20U;
constexpr std::size_t kPanicLines = 100;
constexpr int kMostRelayRestarts = 5;
// What a VM that was paused by a full file system wants to find there before it goes on.
constexpr std::uint64_t kRoom = 64U << 20U;

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

}  // namespace agent_vm

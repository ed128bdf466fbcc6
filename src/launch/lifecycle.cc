#include "launch/lifecycle.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <future>

#include "base/log.h"
#include "base/text.h"
#include "control/client.h"
#include "control/protocol.h"
#include "launch/egress.h"
#include "launch/install_layout.h"
#include "launch/remove_tree.h"
#include "launch/secrets.h"
#include "launch/shared_ssh_check.h"
#include "launch/suspended.h"
#include "os/files.h"
#include "os/process_identity.h"
#include "os/spawn.h"
#include "state/ports.h"

namespace agent_vm {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

// How long the supervisor itself may take to answer beyond what it waits for the guest.
constexpr milliseconds kSupervisorPatience{3'000};

std::vector<std::string> strings(const json& value) {
  std::vector<std::string> list;
  if (!value.is_array()) return list;
  for (const auto& entry : value) {
    if (entry.is_string()) list.push_back(entry.get<std::string>());
  }
  return list;
}

// True when the process has ended by the deadline.
bool wait_for_end(const ProcessIdentity& identity, const Deadline& deadline) {
  const auto pidfd = open_process(identity);
  if (!pidfd) return true;
  pollfd ended{pidfd->get(), POLLIN, 0};
  int polled = 0;
  do {
    polled = ::poll(&ended, 1, deadline.poll_ms());
  } while (polled < 0 && errno == EINTR);
  return polled > 0;
}

void read_last_run(const VmDirectory& vm, RunState& state) {
  const auto text = read_file_at(vm.fd(), kLastRunFile, kMaxControlLine);
  if (!text) return;
  const json last = json::parse(*text, nullptr, false);
  if (!last.is_object()) return;
  // A file that somebody edited must not make us throw: what has the wrong type counts as absent.
  const auto crashed = last.find("crashed");
  if (crashed != last.end() && *crashed == true) state.kind = RunState::Kind::kCrashed;
  const auto reason = last.find("reason");
  if (reason != last.end() && reason->is_string()) state.reason = reason->get<std::string>();
  state.evidence = strings(last.value("evidence", json::array()));
}

RunState::Kind kind_of(const std::string& supervisor_state) {
  if (supervisor_state == "starting") return RunState::Kind::kStarting;
  if (supervisor_state == "paused") return RunState::Kind::kPaused;
  if (supervisor_state == "stopping") return RunState::Kind::kStopping;
  if (supervisor_state == "suspending") return RunState::Kind::kSuspending;
  if (supervisor_state == "forking") return RunState::Kind::kForking;
  return RunState::Kind::kRunning;
}

// Leaves no trace of a run whose supervisor was killed, so that the next one starts from nothing.
Status clear_dead_run(const VmDirectory& vm) {
  static_cast<void>(::unlinkat(vm.fd(), kControlSocket, 0));
  static_cast<void>(::unlinkat(vm.fd(), kMcpSocketFile, 0));
  TRY(remove_drafts(vm));
  // A fork that nobody could finish.
  TRY(remove_vm_tree(vm.fd(), kForkFolder));
  return vm.remove_run();
}

Status renew_ports(const std::string& state_path, const VmDirectory& vm, VmConfig& config,
                   const Deadline& deadline, std::vector<std::string>& notes) {
  const StateDirectory state = TRY(StateDirectory::open(state_path));
  const DirectoryLock lock = TRY(state.lock(deadline));
  if (!TRY(replace_taken_ports(state, config))) return {};
  notes.push_back(fmt::format(
      "another program has taken a port of this VM; it now uses {} for MCP and {} for SSH",
      config.port, config.ssh_port));
  return vm.write_config(config);
}

struct StartedSupervisor {
  ControlClient channel;
  Child process;
};

Result<StartedSupervisor> spawn_supervisor(const std::string& state_path, const VmDirectory& vm,
                                           const DirectoryLock& lock, const Fd& secrets,
                                           const StartOptions& options, const Deadline& deadline) {
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    return fail_errno(errno, "cannot make a socket pair");
  }
  Fd ours(pair[0]);
  const Fd theirs(pair[1]);
  const InstallLayout layout = TRY(InstallLayout::find());
  const int timeout_ms = deadline.poll_ms();
  SpawnSpec spec;
  spec.argv = {layout.supervisor,
               "--state-dir",
               state_path,
               "--vm",
               vm.name(),
               "--channel",
               "3",
               "--lock",
               "4",
               "--secrets",
               "5",
               "--timeout-ms",
               std::to_string(timeout_ms < 0 ? 3'600'000 : timeout_ms)};
  if (options.cold) spec.argv.emplace_back("--cold");
  if (options.debug) spec.argv.emplace_back("--debug");
  spec.environment = host_environment();
  // For the ssh of git over SSH, which goes out on the host; no other child gets it.
  if (const char* agent = std::getenv("SSH_AUTH_SOCK"))  // NOLINT(concurrency-mt-unsafe)
    spec.environment.push_back(fmt::format("SSH_AUTH_SOCK={}", agent));
  spec.descriptors = {{theirs.get(), 3}, {lock.fd(), 4}, {secrets.get(), 5}};
  spec.working_directory = "/";
  spec.new_session = true;
  Child process = TRY(spawn(spec));
  return StartedSupervisor{ControlClient(std::move(ours)), std::move(process)};
}

Error explain_ssh(const SshCheck& check, const RunState& state) {
  Error error(ErrorKind::kFailed, fmt::format("SSH into the VM failed at the step '{}': {}",
                                              check.failed_step, check.detail));
  std::vector<std::string> evidence;
  if (state.supervisor.is_object()) {
    const bool alive = state.supervisor.value("processes", json::object()).contains("qemu");
    evidence.push_back(fmt::format("QEMU {}", alive ? "runs" : "does not run"));
  }
  return std::move(error).with_evidence(std::move(evidence));
}

}  // namespace

const char* to_string(RunState::Kind kind) {
  switch (kind) {
    case RunState::Kind::kStopped:
      return "Stopped";
    case RunState::Kind::kStarting:
      return "Starting";
    case RunState::Kind::kRunning:
      return "Running";
    case RunState::Kind::kPaused:
      return "Paused";
    case RunState::Kind::kSuspending:
      return "Suspending";
    case RunState::Kind::kForking:
      return "Forking";
    case RunState::Kind::kSuspended:
      return "Suspended";
    case RunState::Kind::kStopping:
      return "Stopping";
    case RunState::Kind::kCrashed:
      return "Crashed";
    case RunState::Kind::kUnresponsive:
      return "Unresponsive";
  }
  return "Unknown";
}

Result<RunState> query_run_state(const VmDirectory& vm, std::optional<milliseconds> patience) {
  RunState state;
  state.record = TRY(vm.read_run());
  const bool ended = !state.record || state.record->is_stale();
  if (ended && is_suspended(vm)) {
    state.record.reset();
    state.kind = RunState::Kind::kSuspended;
    state.reason = describe_suspended(vm);
    return state;
  }
  if (!state.record) {
    read_last_run(vm, state);
    return state;
  }
  if (state.record->is_stale()) {
    const auto boot = boot_id();
    state.kind = RunState::Kind::kCrashed;
    state.reason = boot && *boot != state.record->supervisor.boot_id
                       ? "the host was restarted while the VM ran"
                       : "its supervisor was killed";
    return state;
  }
  auto client = ControlClient::connect(vm.fd());
  if (!client) {
    // Between its first record and its socket, or after it has closed the socket.
    state.kind = RunState::Kind::kStarting;
    state.reason = client.error().message();
    return state;
  }
  const milliseconds guest_patience = patience.value_or(milliseconds(0));
  const json request = {{"request", "status"},
                        {"patience_ms", guest_patience.count()},
                        {"guest", patience.has_value()}};
  auto answer = client->call(request, Deadline::in(guest_patience + kSupervisorPatience));
  if (!answer) {
    if (answer.error().kind() == ErrorKind::kNotRunning) {
      // It ended while we asked.
      if (wait_for_end(state.record->supervisor, Deadline::in(kSupervisorPatience)))
        return query_run_state(vm, patience);
    }
    state.kind = RunState::Kind::kUnresponsive;
    state.reason = answer.error().message();
    return state;
  }
  state.supervisor = std::move(*answer);
  state.kind = kind_of(state.supervisor.value("state", "running"));
  state.reason = state.supervisor.value("state_reason", "");
  return state;
}

Result<StartOutcome> start_vm(const std::string& state_path, const VmDirectory& vm,
                              const DirectoryLock& lock, const StartOptions& options,
                              const Deadline& deadline, const LifecycleProgress& progress) {
  VmConfig config = TRY(vm.read_config());
  StartOutcome outcome;
  const auto record = TRY(vm.read_run());
  if (record && !record->is_stale()) {
    const RunState state = TRY(query_run_state(vm, std::nullopt));
    if (state.kind == RunState::Kind::kRunning || state.kind == RunState::Kind::kPaused) {
      outcome.already_running = true;
      outcome.ssh = shared_ssh_check(vm, config, deadline);
      return outcome;
    }
    // We hold the lock, so this run belongs to a command that died; its supervisor is cleaning up.
    progress("wait", "waiting for the last run to end");
    if (!wait_for_end(record->supervisor, deadline.sooner(seconds(30)))) {
      auto error = fail(ErrorKind::kTimeout, "the last run's supervisor (process {}) does not end",
                        record->supervisor.pid);
      return tl::unexpected(
          std::move(error).value().with_hint(fmt::format("agent-vm stop --force {}", vm.name())));
    }
  }
  TRY(clear_dead_run(vm));
  TRY(renew_ports(state_path, vm, config, deadline, outcome.notes));
  // Here, and not in the supervisor, because the user's own variables have a say in it.
  TRY(write_network_records(vm, config, deadline));
  const Fd secrets = TRY(gather_secrets(vm, deadline, outcome.notes));

  StartedSupervisor supervisor =
      TRY(spawn_supervisor(state_path, vm, lock, secrets, options, deadline));
  // The supervisor keeps the deadline itself and says what it waited for; a little more for the
  // teardown.
  const Deadline with_margin =
      deadline.is_never() ? deadline : Deadline::in(milliseconds(deadline.poll_ms()) + seconds(20));
  // The login begins as soon as the guest is there, beside what is left of the start: it gets
  // through at the moment when the guest has its keys and its address.
  const SshTarget target = ssh_target(vm, config);
  std::future<SshCheck> early_login;
  const auto received = supervisor.channel.receive(
      with_margin, [&](const std::string& step, const std::string& text) {
        progress(step, text);
        if (step != kIdentityStep || early_login.valid()) return;
        outcome.profile.login_began = StartProfile::Clock::now();
        early_login = std::async(std::launch::async, try_ssh, target, deadline, true);
      });
  if (!received) {
    // It has torn everything down before it said so; what is left is its own end.
    static_cast<void>(supervisor.process.wait(Deadline::in(seconds(5))));
    return tl::unexpected(received.error());
  }
  for (auto& note : strings(received->value("notes", json::array())))
    outcome.notes.push_back(std::move(note));

  progress("ssh", "logging in over SSH");
  outcome.profile.take(*received);
  if (early_login.valid()) outcome.ssh = early_login.get();
  // The early one may have come too early; this one finds out what is wrong, too.
  if (!outcome.ssh.authenticated) outcome.ssh = check_ssh(target, deadline, true);
  outcome.profile.finish();
  if (!outcome.ssh.authenticated) {
    const auto state = query_run_state(vm, std::nullopt);
    Error error = explain_ssh(outcome.ssh, state ? *state : RunState{});
    if (deadline.expired()) error = std::move(error).with_kind(ErrorKind::kTimeout);
    static_cast<void>(stop_vm(vm, milliseconds(0), false, Deadline::in(seconds(20))));
    return tl::unexpected(std::move(error));
  }
  return outcome;
}

Status add_boot_profile(const VmDirectory& vm, StartProfile& profile, const Deadline& deadline) {
  if (!profile.booted) return {};
  auto client = TRY(ControlClient::connect(vm.fd()));
  const json request = {{"request", "boot_profile"}};
  profile.take_boot(TRY(client.call(request, deadline)));
  return {};
}

Result<StopOutcome> stop_vm(const VmDirectory& vm, milliseconds grace, bool force,
                            const Deadline& deadline) {
  StopOutcome outcome;
  const auto record = TRY(vm.read_run());
  if (!record || record->is_stale()) {
    if (record) TRY(clear_dead_run(vm));
    outcome.gave_up_suspended = is_suspended(vm);
    TRY(discard_suspended(vm));
    return outcome;
  }
  outcome.was_running = true;
  if (force) {
    const auto pidfd = open_process(record->supervisor);
    if (pidfd && ::syscall(SYS_pidfd_send_signal, pidfd->get(), SIGKILL, nullptr, 0) != 0 &&
        errno != ESRCH) {
      return fail_errno(errno, "cannot kill the supervisor (process {})", record->supervisor.pid);
    }
    outcome.how = "force";
  } else {
    const auto unresponsive = [&](const Error& cause) {
      return tl::unexpected(
          Error(cause)
              .within("stopping the VM")
              .with_hint(
                  fmt::format("agent-vm stop --force {}   (kills it without asking)", vm.name())));
    };
    auto client = ControlClient::connect(vm.fd());
    // Between its first record and its socket, or after it has closed the socket: soon it has one,
    // or has ended.
    const Deadline soon = deadline.sooner(seconds(5));
    while (!client && !soon.expired()) {
      if (wait_for_end(record->supervisor, soon.sooner(milliseconds(50)))) {
        TRY(clear_dead_run(vm));
        return outcome;
      }
      client = ControlClient::connect(vm.fd());
    }
    if (!client) return unresponsive(client.error());
    const json request = {{"request", "stop"}, {"grace_ms", grace.count()}};
    const auto answer = client->call(request, deadline);
    // An end in the middle of the answer is an end, too: look at the process itself.
    if (!answer && answer.error().kind() != ErrorKind::kNotRunning)
      return unresponsive(answer.error());
    if (answer) outcome.how = answer->value("how", "");
  }
  if (!wait_for_end(record->supervisor, deadline.sooner(seconds(30)))) {
    return fail(ErrorKind::kTimeout, "the supervisor (process {}) does not end",
                record->supervisor.pid);
  }
  TRY(clear_dead_run(vm));
  return outcome;
}

Status suspend_vm(const VmDirectory& vm, bool force, const Deadline& deadline) {
  const auto record = TRY(vm.read_run());
  if (!record || record->is_stale()) {
    if (is_suspended(vm))
      return fail(ErrorKind::kNotRunning, "VM '{}' is suspended already", vm.name());
    return fail(ErrorKind::kNotRunning, "VM '{}' is not running", vm.name());
  }
  auto client = TRY(ControlClient::connect(vm.fd()));
  const int left = deadline.poll_ms();
  json request = {{"request", "suspend"}, {"force", force}};
  // The supervisor undoes what it has begun, for which it needs some of the time.
  if (left >= 0) request["patience_ms"] = left * 2 / 3;
  const auto answer = client.call(request, deadline);
  if (!answer && answer.error().kind() != ErrorKind::kNotRunning)
    return tl::unexpected(answer.error());
  if (!wait_for_end(record->supervisor, deadline.sooner(seconds(30)))) {
    if (!answer) return tl::unexpected(answer.error());
    return fail(ErrorKind::kTimeout, "the supervisor (process {}) does not end",
                record->supervisor.pid);
  }
  if (!is_suspended(vm)) return fail("the VM ended while it was being suspended");
  return clear_dead_run(vm);
}

}  // namespace agent_vm

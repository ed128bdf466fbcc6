#include "supervise/run.h"

#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>

#include "base/log.h"
#include "confine/jail.h"
#include "confine/user_namespace.h"
#include "control/protocol.h"
#include "launch/prepare.h"
#include "os/files.h"
#include "qmp/json_stream.h"
#include "state/authority.h"
#include "state/state_directory.h"
#include "supervise/control_server.h"
#include "supervise/git_broker.h"
#include "supervise/supervisor.h"

namespace agent_vm {

using nlohmann::json;
using std::chrono::milliseconds;

namespace {

constexpr std::size_t kSupervisorLogBytes = 4U << 20U;

// Everything that a start needs and that can fail before there is an event loop.
struct Setup {
  VmDirectory vm;
  VmConfig config;
  PreparedStart prepared;
  Child git_broker;
};

Result<Setup> set_up(const SupervisorOptions& options, Fd lock, const Deadline& deadline) {
  const StateDirectory state = TRY(StateDirectory::open(options.state_directory));
  VmDirectory vm = TRY(state.vm(options.vm_name));
  TRY(make_directory_at(vm.fd(), vm_files::kLogs, 0700));
  log::to_file(vm.path() + "/" + vm_files::kLogs + "/supervisor.log",
               options.debug ? log::Level::kDebug : log::Level::kInfo, kSupervisorLogBytes);
  VmConfig config = TRY(vm.read_config());
  PreparedStart prepared = TRY(prepare_start(vm, config, options.cold, deadline));
  prepared.secrets = Fd(options.secrets);
  TRY(ensure_disk(vm, prepared, deadline));
  TRY(ensure_authority(vm.name(), vm.fd()));
  RunRecord record;
  record.supervisor = TRY(identify(::getpid()));
  record.started_at = utc_now();
  record.bind_address = config.bind_address;
  record.port = config.port;
  record.ssh_port = config.ssh_port;
  record.accel = prepared.accelerator == Accelerator::kKvm ? Accel::kKvm : Accel::kTcg;
  record.image_key = prepared.image_key;
  // From here on every other command can see that somebody is at work, and whether he still is.
  TRY(vm.write_run(record));
  lock.reset();
  GitBroker git = TRY(start_git_broker());
  prepared.git_broker = std::move(git.channel);
  allow_open_files();
  TRY(take_kvm_group());
  TRY(enter_user_namespace(prepared.plan.ids));
  return Setup{std::move(vm), std::move(config), std::move(prepared), std::move(git.process)};
}

void report(int channel, const json& message) {
  const std::string text = dump(message) + "\n";
  // The command may have gone; that is noticed elsewhere.
  static_cast<void>(::send(channel, text.data(), text.size(), MSG_NOSIGNAL));
}

// Ends the start when the command that asked for it goes away (Ctrl-C, kill, a closed terminal).
Task<void> watch_channel(asio::io_context& io, int channel, Supervisor& supervisor,
                         const bool& started) {
  asio::posix::stream_descriptor descriptor(io, ::dup(channel));
  co_await descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                 asio::as_tuple(asio::use_awaitable));
  if (!started) supervisor.end_with({false, "the command that started it was interrupted", {}});
}

Task<void> watch_signals(asio::signal_set& signals, Supervisor& supervisor) {
  const auto [error, number] = co_await signals.async_wait(asio::as_tuple(asio::use_awaitable));
  if (error) co_return;
  log::info("{} received", signal_name(number));
  static_cast<void>(co_await supervisor.shut_down(std::chrono::seconds(20)));
}

Task<void> live(asio::io_context& io, const SupervisorOptions& options, Setup& setup,
                Deadline deadline, int& status) {
  Supervisor supervisor(io, setup.vm, setup.config, std::move(setup.prepared));
  asio::signal_set signals(io, SIGTERM, SIGINT);
  start_detached(io, watch_signals(signals, supervisor));
  bool started = false;
  start_detached(io, watch_channel(io, options.channel, supervisor, started));

  auto server = ControlServer::listen(io, setup.vm.fd(), supervisor);
  Supervisor::Progress progress = [&](const std::string& step, const std::string& text) {
    report(options.channel, progress_message(step, text));
  };
  Result<json> outcome = json();
  if (server) {
    outcome = co_await supervisor.start(deadline, std::move(progress));
  } else {
    outcome = tl::unexpected(server.error());
    static_cast<void>(setup.vm.remove_run());
  }
  started = true;
  report(options.channel, outcome ? result_message(*outcome) : error_message(outcome.error()));
  ::shutdown(options.channel, SHUT_RDWR);
  if (outcome) {
    status = 0;
    co_await supervisor.run_to_end();
  }
  // Let answers to the last requests leave before the loop ends with its objects.
  co_await sleep_for(milliseconds(50));
  io.stop();
}

}  // namespace

int run_supervisor(const SupervisorOptions& options) {
  static_cast<void>(::signal(SIGPIPE, SIG_IGN));
  static_cast<void>(::signal(SIGHUP, SIG_IGN));
  const Deadline deadline = Deadline::in(milliseconds(options.start_timeout_ms));
  auto setup = set_up(options, Fd(options.lock), deadline);
  if (!setup) {
    log::error("{}", setup.error().message());
    report(options.channel, error_message(setup.error()));
    // Only our own record: nobody else's can be there, the starting command holds the VM's lock.
    if (const auto state = StateDirectory::open(options.state_directory)) {
      if (const auto vm = state->vm(options.vm_name)) static_cast<void>(vm->remove_run());
    }
    return 1;
  }
  int status = 1;
  asio::io_context io(1);
  start_detached(io, live(io, options, *setup, deadline, status));
  io.run();
  // It would see our end and go by itself; with every ssh of its session it is gone before us.
  ::kill(-setup->git_broker.pid(), SIGKILL);
  static_cast<void>(setup->git_broker.wait());
  return status;
}

}  // namespace agent_vm

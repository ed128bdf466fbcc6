#include "supervise/machine.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "base/log.h"

namespace agent_vm {

using nlohmann::json;
using std::chrono::milliseconds;

namespace {

json capabilities_of_a_saved_machine() {
  json list = json::array();
  // "x-": the interface may change, which is why QEMU's version is part of a template's key. The
  // memory is shared with virtiofsd anyway, and so is left out of the stream.
  for (const auto* name : {"x-ignore-shared", "events"})
    list.push_back({{"capability", name}, {"state", true}});
  return {{"capabilities", std::move(list)}};
}

}  // namespace

Result<SocketPair> make_socket_pair(int type) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return fail_errno(errno, "cannot make a socket pair");
  return SocketPair{Fd(ends[0]), Fd(ends[1])};
}

Result<Fd> log_channel(asio::io_context& io, std::shared_ptr<CappedLog> log) {
  auto pair = TRY(make_socket_pair(SOCK_STREAM));
  start_detached(io, pump_into(io, std::move(pair.ours), std::move(log)));
  return std::move(pair.theirs);
}

Result<std::shared_ptr<Machine>> Machine::start(asio::io_context& io, const PlannedChild& plan,
                                                DescriptorTable files, const Logs& logs,
                                                Handlers handlers) {
  const Fd words = TRY(log_channel(io, logs.qemu));
  auto monitor = TRY(make_socket_pair(SOCK_STREAM));
  auto agent = TRY(make_socket_pair(SOCK_STREAM));
  auto bell = TRY(make_socket_pair(SOCK_STREAM));
  auto console = TRY(make_socket_pair(SOCK_STREAM));
  files[DescriptorUse::kLog] = words.get();
  files[DescriptorUse::kMonitor] = monitor.theirs.get();
  files[DescriptorUse::kGuestAgent] = agent.theirs.get();
  files[DescriptorUse::kGuestBell] = bell.theirs.get();
  files[DescriptorUse::kConsole] = console.theirs.get();
  const std::shared_ptr<Machine> self(new Machine());
  self->self_ = self;
  self->handlers_ = std::move(handlers);
  self->qemu_ = TRY(SupervisedChild::start(io, plan, files, -1, [&io, self](Child::Exit exit) {
    start_detached(io, on_end(self, exit));
  }));
  self->qmp_ = std::make_unique<QmpClient>(io, std::move(monitor.ours));
  self->agent_ = std::make_unique<GuestAgent>(io, std::move(agent.ours), std::move(bell.ours));
  start_detached(io, follow_console(io, self, std::move(console.ours), logs.console));
  return self;
}

Machine::~Machine() = default;

void Machine::on_event(const std::shared_ptr<Machine>& self, const std::string& name,
                       const json& data) {
  if (self->abandoned_) return;
  const auto text = [&](const char* member) {
    return data.contains(member) && data[member].is_string() ? data[member].get<std::string>() : "";
  };
  if (name == "VSERPORT_CHANGE" && text("id") == "agent0") {
    self->agent_->restarted();
    if (data.value("open", false)) self->agent_open_.set();
  } else if (name == "SHUTDOWN") {
    self->shutdown_reason_ = text("reason");
  } else if (name == "MIGRATION") {
    self->migration_ = text("status");
    const bool over = self->migration_ == "completed" || self->migration_ == "failed";
    if (over && self->migrated_) self->migrated_->set();
  } else if (name == "DEVICE_DELETED" && self->unplugged_ && text("device") == self->unplugging_) {
    self->unplugged_->set();
  }
  self->handlers_.on_event(name, data);
}

Task<void> Machine::on_end(std::shared_ptr<Machine> self, Child::Exit exit) {
  if (self->migrated_) self->migrated_->set();
  if (self->unplugged_) self->unplugged_->set();
  // The guest's last words may still be in the socket.
  co_await self->console_ended_.wait(Deadline::in(milliseconds(500)));
  if (!self->abandoned_) self->handlers_.on_end(exit);
}

Task<void> Machine::follow_console(asio::io_context& io, std::shared_ptr<Machine> self, Fd socket,
                                   std::shared_ptr<CappedLog> log) {
  co_await pump_into(io, std::move(socket), std::move(log));
  self->console_ended_.set();
}

Task<Status> Machine::connect(Deadline deadline) {
  QmpClient::EventHandler handler = [weak = self_](const std::string& name, const json& data) {
    if (const auto self = weak.lock()) on_event(self, name, data);
  };
  co_return co_await qmp_->start(std::move(handler), deadline);
}

Task<Status> Machine::stop_processors(Deadline deadline) {
  json nothing = json::object();
  CO_TRY(const json ignored, co_await qmp_->execute("stop", std::move(nothing), deadline));
  co_return Status();
}

Task<Status> Machine::run_processors(Deadline deadline) {
  json nothing = json::object();
  CO_TRY(const json ignored, co_await qmp_->execute("cont", std::move(nothing), deadline));
  co_return Status();
}

Task<Status> Machine::migrate(const char* command, std::string name, int file, Deadline deadline) {
  migrated_ = std::make_shared<Event>();
  const auto migrated = migrated_;
  json capabilities = capabilities_of_a_saved_machine();
  CO_TRY(const json set,
         co_await qmp_->execute("migrate-set-capabilities", std::move(capabilities), deadline));
  CO_CHECK(co_await qmp_->pass_descriptor(name, file, deadline));
  json where = {{"uri", "fd:" + name}};
  CO_TRY(const json begun, co_await qmp_->execute(command, std::move(where), deadline));
  if (!co_await migrated->wait(deadline))
    CO_FAIL(ErrorKind::kTimeout, "QEMU did not finish '{}' in time", command);
  if (migration_ != "completed") CO_FAIL("QEMU could not do '{}': {}", command, migration_);
  co_return Status();
}

Task<Status> Machine::save_devices(int file, Deadline deadline) {
  co_return co_await migrate("migrate", "template", file, deadline);
}

Task<Status> Machine::load_devices(int file, Deadline deadline) {
  co_return co_await migrate("migrate-incoming", "template", file, deadline);
}

Task<Status> Machine::unplug(std::string id, Deadline deadline) {
  unplugged_ = std::make_shared<Event>();
  const auto unplugged = unplugged_;
  unplugging_ = id;
  json device = {{"id", id}};
  CO_TRY(const json asked, co_await qmp_->execute("device_del", std::move(device), deadline));
  if (!co_await unplugged->wait(deadline))
    CO_FAIL(ErrorKind::kTimeout, "the guest did not give up the device '{}' in time", id);
  co_return Status();
}

Task<void> Machine::abandon() {
  abandoned_ = true;
  close_channels();
  qemu_->kill();
  co_await qemu_->wait(Deadline::in(std::chrono::seconds(5)));
}

void Machine::close_channels() {
  qmp_->close();
  agent_->close();
}

}  // namespace agent_vm

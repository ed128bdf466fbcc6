// What a running VM is asked: its state, where its boot's time went, other MCP servers.
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/text.h"
#include "supervise/boot_profile.h"
#include "supervise/guest_status.h"
#include "supervise/mcp_reload.h"
#include "supervise/supervisor.h"

namespace agent_vm {

using nlohmann::json;
using std::chrono::seconds;

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

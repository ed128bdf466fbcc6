#include "supervise/control_server.h"

#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/log.h"
#include "base/text.h"
#include "control/protocol.h"
#include "net/listener.h"
#include "qmp/json_stream.h"

namespace agent_vm {

using nlohmann::json;
using std::chrono::milliseconds;

namespace {
constexpr milliseconds kDefaultGrace{20'000};
constexpr milliseconds kDefaultStatusPatience{5'000};
constexpr milliseconds kDefaultGuestPatience{30'000};
constexpr milliseconds kDefaultSuspendPatience{120'000};
}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::listen(asio::io_context& io, int vm_directory,
                                                             Supervisor& supervisor) {
  // One that is there was left by a supervisor that was killed; the caller knows that none runs.
  Fd listener = TRY(listen_unix(vm_directory, kControlSocket));
  Fd directory(::dup(vm_directory));
  std::unique_ptr<ControlServer> server(
      new ControlServer(io, std::move(directory), std::move(listener), supervisor));
  start_detached(io, server->accept_all());
  return server;
}

ControlServer::ControlServer(asio::io_context& io, Fd directory, Fd listener,
                             Supervisor& supervisor)
    : io_(io),
      directory_(std::move(directory)),
      acceptor_(io, asio::local::stream_protocol(), listener.release()),
      supervisor_(supervisor) {}

ControlServer::~ControlServer() {
  static_cast<void>(::unlinkat(directory_.get(), kControlSocket, 0));
}

Task<void> ControlServer::accept_all() {
  while (true) {
    auto [error, socket] = co_await acceptor_.async_accept(asio::as_tuple(asio::use_awaitable));
    if (error == asio::error::operation_aborted) co_return;
    if (error) {
      log::warn("control socket: {}", error.message());
      co_await sleep_for(milliseconds(100));  // out of descriptors, most likely
      continue;
    }
    start_detached(io_, serve(Fd(socket.release())));
  }
}

Task<void> ControlServer::serve(Fd socket) {
  JsonStream stream(io_, std::move(socket), kMaxControlLine, "control");
  while (true) {
    auto request = co_await stream.read();
    if (!request) co_return;
    const auto result = co_await answer(std::move(*request));
    const json message = result ? result_message(*result) : error_message(result.error());
    if (!co_await stream.write(message)) co_return;
  }
}

Task<Result<json>> ControlServer::answer(json request) {
  const bool named =
      request.is_object() && request.contains("request") && request["request"].is_string();
  const std::string name = named ? request["request"].get<std::string>() : "";
  const auto duration = [&](const char* member, milliseconds fallback) {
    return request.contains(member) && request[member].is_number_unsigned()
               ? milliseconds(request[member].get<std::uint32_t>())
               : fallback;
  };
  if (name == "status") {
    const bool with_guest = request.value("guest", json(true)) != false;
    co_return co_await supervisor_.status(
        Deadline::in(duration("patience_ms", kDefaultStatusPatience)), with_guest);
  }
  if (name == "network") {
    // The configuration has changed, and the policy file with it.
    CO_CHECK(supervisor_.apply_network());
    json mode = {{"mode", to_string(supervisor_.network_mode())}};
    co_return mode;
  }
  if (name == "boot_profile") {
    co_return co_await supervisor_.boot_profile(
        Deadline::in(duration("patience_ms", kDefaultGuestPatience)));
  }
  if (name == "reload_mcp") {
    co_return co_await supervisor_.reload_mcp(
        Deadline::in(duration("patience_ms", kDefaultGuestPatience)));
  }
  if (name == "suspend") {
    const bool force = request.value("force", json()) == true;
    CO_TRY(json outcome,
           co_await supervisor_.suspend(
               force, Deadline::in(duration("patience_ms", kDefaultSuspendPatience))));
    co_await supervisor_.torn_down().wait(Deadline::in(std::chrono::seconds(20)));
    co_return outcome;
  }
  if (name == "fork") {
    const bool force = request.value("force", json()) == true;
    co_return co_await supervisor_.fork(
        force, Deadline::in(duration("patience_ms", kDefaultSuspendPatience)));
  }
  if (name == "stop") {
    // Any number may ask; one stop is made, and all get its outcome.
    if (!std::exchange(stopping_, true)) {
      stopped_how_ = co_await supervisor_.shut_down(duration("grace_ms", kDefaultGrace));
      co_await supervisor_.torn_down().wait(Deadline::in(std::chrono::seconds(20)));
      stopped_.set();
    }
    co_await stopped_.wait(Deadline::in(std::chrono::minutes(5)));
    json outcome = {{"how", stopped_how_}};
    co_return outcome;
  }
  CO_FAIL(ErrorKind::kInvalidInput, "the supervisor knows no request '{}'", escape_line(name));
}

}  // namespace agent_vm

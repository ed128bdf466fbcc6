// A session at work: the pure mcp::Session, the server behind it, and the time between the two.
//
// Why every session has a server process of its own. A stdio server is written for one client: it
// is initialised once, with that client's capabilities, and addresses "the client" when it samples,
// elicits, asks for roots, logs or announces a change. Behind a shared process the gateway would
// have to guess which session such a message is for, and a wrong guess hands one client's
// conversation to another. With a process for each session there is nothing to guess, the ids of
// the two ends need no translation, messages pass as the bytes they are, a crash or a stall is felt
// by one session only, and a slow client can be answered with back-pressure instead of with a
// buffer. What it costs is memory for each session, so that an idle session's process is stopped
// after a while and started again, with the recorded handshake, when the session is used.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>

#include "gateway/backend.h"
#include "gateway/config.h"
#include "gateway/notifier.h"
#include "gateway/server_state.h"
#include "mcp/session.h"

namespace agent_vm::gateway {

// One configured server. Lives as long as the gateway.
struct ServerEntry {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make_backend;
  ServerState state;
};

class LiveSession : public std::enable_shared_from_this<LiveSession> {
 public:
  // `on_established` runs when the session's record is worth saving (again).
  LiveSession(boost::asio::any_io_executor executor, ServerEntry& server, mcp::Session core,
              const Limits& limits, std::function<void(const mcp::SessionRecord&)> on_established);
  ~LiveSession();

  const std::string& id() const { return core_.id(); }
  ServerEntry& server() { return server_; }
  mcp::Session& core() { return core_; }
  // Notified when a stream got a message or ended, and when the server's state changes.
  Notifier& changed() { return changed_; }

  // Waits until the server takes requests: it is started, restarted after its back-off, or comes
  // out of its handshake. An error says why it does not (yet).
  boost::asio::awaitable<Status> ready(Clock::time_point deadline);
  // Waits until the server has taken most of what it was sent.
  boost::asio::awaitable<Status> writable(Clock::time_point deadline);
  // Hands a client's message on. The server must be ready.
  tl::expected<mcp::Session::Accepted, mcp::Refusal> post(std::string_view body);

  // A reader has sent something: the server may go on.
  void delivered();

  // The client's DELETE, or an end for another reason: streams end, the server is stopped.
  void close(const process::StopPolicy& policy = {});
  bool closed() const { return closed_; }
  // Stops the server of a session that nobody uses; the session stays.
  void park();
  bool idle() const { return core_.in_flight() == 0 && !core_.has_attached_stream(); }
  Clock::time_point last_used() const { return last_used_; }
  void touch() { last_used_ = Clock::now(); }
  bool has_server() const { return backend_ != nullptr; }
  bool starting() const { return backend_ != nullptr && !core_.server_ready(); }
  pid_t server_pid() const { return backend_ ? backend_->pid() : 0; }

 private:
  void start();
  void on_line(std::string_view line);
  void on_exit(const std::string& reason);
  void lost(const std::string& reason);
  void drop_backend(const process::StopPolicy& policy = {});
  void watch_handshake();

  boost::asio::any_io_executor executor_;
  ServerEntry& server_;
  mcp::Session core_;
  const Limits& limits_;
  std::function<void(const mcp::SessionRecord&)> on_established_;
  Notifier changed_;
  std::unique_ptr<Backend> backend_;
  boost::asio::steady_timer restart_timer_;
  boost::asio::steady_timer handshake_timer_;
  Clock::time_point started_{};
  Clock::time_point last_used_ = Clock::now();
  bool paused_ = false;
  bool closed_ = false;
};

}  // namespace agent_vm::gateway

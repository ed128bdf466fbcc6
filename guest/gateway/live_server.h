// A server at work: the pure mcp::ServerSide, the process behind it, and the time between the two.
// Starts, restarts with back-off, ends; back-pressure in both directions.
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
#include "mcp/server_side.h"
#include "mcp/shared_server.h"
#include "mcp/stateless_child.h"

namespace agent_vm::gateway {

// One configured server. Shared by what uses it, so that it can be removed while it is in use.
struct ServerEntry {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make_backend;
  ServerState state;
  std::shared_ptr<mcp::ServerKnowledge> knowledge = std::make_shared<mcp::ServerKnowledge>();
};

class LiveServer : public std::enable_shared_from_this<LiveServer> {
 public:
  LiveServer(boost::asio::any_io_executor executor, std::shared_ptr<ServerEntry> server,
             const Limits& limits);
  virtual ~LiveServer();
  LiveServer(const LiveServer&) = delete;
  LiveServer& operator=(const LiveServer&) = delete;

  virtual mcp::ServerSide& side() = 0;
  const mcp::ServerSide& side() const { return const_cast<LiveServer*>(this)->side(); }
  // For the log.
  virtual std::string label() const = 0;

  ServerEntry& server() const { return *server_; }
  // Notified when a stream got a message or ended, and when the server's state changes.
  Notifier& changed() { return changed_; }

  // Waits until the server takes requests: it is started, restarted after its back-off, or comes
  // out of its handshake. An error says why it does not (yet).
  boost::asio::awaitable<Status> ready(Clock::time_point deadline);
  // Waits until the server has taken most of what it was sent.
  boost::asio::awaitable<Status> writable(Clock::time_point deadline);

  // A reader has sent something: the server may go on.
  void delivered();

  // Streams end, the server is stopped.
  void close(const process::StopPolicy& policy = {},
             const std::string& reason = "the session was ended");
  bool closed() const { return closed_; }
  // Stops the process of what nobody uses; the rest stays.
  void park();
  // Ends the process; what needs one gets a new one.
  void renew(const std::string& reason);
  bool idle() const { return side().in_flight() == 0 && !side().has_attached_stream(); }
  Clock::time_point last_used() const { return last_used_; }
  void touch() { last_used_ = Clock::now(); }
  bool has_server() const { return backend_ != nullptr; }
  bool starting() const { return backend_ != nullptr && !side().server_ready(); }
  pid_t server_pid() const { return backend_ ? backend_->pid() : 0; }

 protected:
  void send_all(std::vector<std::string> lines);
  // What the core said has happened, beyond what every server has in common.
  virtual void on_effects(const mcp::ServerSide::FromServer& /*effects*/) {}

 private:
  void start();
  void on_output(std::string_view line);
  void on_line(std::string_view line, std::string_view about);
  void lost(const std::string& reason);
  void drop_backend(const process::StopPolicy& policy = {});
  void watch_handshake();

  boost::asio::any_io_executor executor_;
  std::shared_ptr<ServerEntry> server_;
  const Limits& limits_;
  Notifier changed_;
  std::unique_ptr<Backend> backend_;
  mcp::StatelessChild adapter_;  // of the present process
  boost::asio::steady_timer restart_timer_;
  boost::asio::steady_timer handshake_timer_;
  Clock::time_point started_{};
  Clock::time_point last_used_ = Clock::now();
  bool paused_ = false;
  bool closed_ = false;
};

}  // namespace agent_vm::gateway

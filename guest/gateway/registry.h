// All servers and all sessions.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "gateway/live_session.h"
#include "gateway/session_store.h"

namespace agent_vm::gateway {

class Registry {
 public:
  Registry(boost::asio::any_io_executor executor, const Config& config,
           std::shared_ptr<workspace::Service> workspace);

  // Takes up the sessions that an earlier gateway left. Their servers start when they are used.
  Status restore();

  // The server of that name; empty: the default one. Null when there is none.
  ServerEntry* server(const std::string& name);
  // A new session; kNotRunning when there are too many that are in use.
  Result<std::shared_ptr<LiveSession>> create(ServerEntry& server, bool one_stream = false);
  // The session, if it is one of this server.
  std::shared_ptr<LiveSession> find(const std::string& id, const ServerEntry& server);
  void remove(const std::string& id);

  // Stops the servers of sessions that nobody used for a while, and ends handshakes that nobody
  // finished.
  void sweep();
  // Ends all: streams end, servers are stopped. The records stay for the next gateway.
  void close_all(const process::StopPolicy& policy);

  // Wakes whoever waits on a session, to look at the world again.
  void notify_all();

  // For callers who have shown the token.
  nlohmann::ordered_json details() const;

 private:
  bool make_room();
  void park_excess(const ServerEntry& server);
  std::shared_ptr<LiveSession> oldest_idle(const ServerEntry* server, bool with_process) const;

  boost::asio::any_io_executor executor_;
  const Config& config_;
  SessionStore store_;
  std::map<std::string, ServerEntry> servers_;
  std::map<std::string, std::shared_ptr<LiveSession>> sessions_;
};

}  // namespace agent_vm::gateway

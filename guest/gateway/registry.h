// All servers, and all that is open at them.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gateway/live_session.h"
#include "gateway/live_shared.h"
#include "gateway/session_store.h"

namespace agent_vm::gateway {

class Registry {
 public:
  Registry(boost::asio::any_io_executor executor, const Config& config,
           std::shared_ptr<workspace::Service> workspace, std::string state_key);

  // Takes up the sessions that an earlier gateway left. Their servers start when they are used.
  Status restore();
  // The configuration's servers have changed. What did not change is not disturbed; the sessions of
  // a server that is gone end; those of a server that changed go on with a new process.
  void servers_changed();

  // The server of that name; empty: the default one. Null when there is none.
  std::shared_ptr<ServerEntry> server(const std::string& name);
  // A new session; kNotRunning when there are too many that are in use.
  Result<std::shared_ptr<LiveSession>> create(const std::shared_ptr<ServerEntry>& server,
                                              bool one_stream = false);
  // The session, if it is one of this server.
  std::shared_ptr<LiveSession> find(const std::string& id, const ServerEntry& server);
  void remove(const std::string& id);
  // The shared process for a request without a session: the one that has its call, or one whose
  // clients declare the same capabilities.
  tl::expected<std::shared_ptr<LiveShared>, mcp::Refusal> shared(
      const std::shared_ptr<ServerEntry>& server, const mcp::StatelessRequest& request);

  // Stops the processes that nobody used for a while, and ends handshakes that nobody finished.
  void sweep();
  // Ends all: streams end, servers are stopped. The records stay for the next gateway.
  void close_all(const process::StopPolicy& policy);

  // Wakes whoever waits on a server, to look at the world again.
  void notify_all();

  // For callers who have shown the token.
  nlohmann::ordered_json details() const;

 private:
  struct Shared {
    std::string key;  // of the capabilities
    std::shared_ptr<LiveShared> live;
  };
  void configure(ServerEntry& entry, const StdioServerConfig& server);
  void end_all_of(const ServerEntry& entry, const std::string& reason);
  bool make_room();
  void park_excess(const ServerEntry& server);
  std::shared_ptr<LiveSession> oldest_idle(const ServerEntry* server, bool with_process) const;
  std::vector<std::shared_ptr<LiveServer>> all_of(const ServerEntry& server) const;

  boost::asio::any_io_executor executor_;
  const Config& config_;
  SessionStore store_;
  mcp::StateSigner signer_;
  std::map<std::string, StdioServerConfig> configured_;
  std::map<std::string, std::shared_ptr<ServerEntry>> servers_;
  std::map<std::string, std::shared_ptr<LiveSession>> sessions_;
  std::vector<Shared> shared_;
  std::uint64_t next_shared_ = 1;
};

// 128 random bits in hexadecimal: nobody guesses one.
Result<std::string> random_id();

}  // namespace agent_vm::gateway

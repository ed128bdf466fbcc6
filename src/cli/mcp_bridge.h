// An MCP client that knows only standard input and output, and a VM's endpoint that knows only
// HTTP.
//
// Theory of operation. Each line of the client's is one POST; what comes back, and what the server
// says unasked, are lines for the client. The bytes of messages stay as they are. The client never
// notices that the VM is stopped and started again: while the endpoint is not there, its requests
// wait; a session that the new gateway does not know any more is made again with the client's own
// handshake. What was on its way when the endpoint went away is answered with an error and is not
// repeated, because it may have been done.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "control/mcp_exchange.h"

namespace agent_vm {

class McpBridge {
 public:
  using Write = std::function<void(const std::string& line)>;
  // `server`: empty for the default one. `patience`: how long a request waits for an endpoint that
  // is not there.
  McpBridge(asio::io_context& io, const VmDirectory& vm, const std::string& server, Write write,
            std::chrono::milliseconds patience);

  // One message of the client's. Returns when the next one may be taken.
  Task<void> take(std::string line);
  // The client has no more: gives what is on its way a moment, and ends the session.
  Task<void> finish();

 private:
  struct Flight {
    McpExchange exchange;
    bool stateless = false;
    std::string id;  // as JSON; empty for what is no request
  };

  Task<void> forward(std::string line, std::string id, std::shared_ptr<Flight> flight);
  // Sends one message, again as long as it cannot have been got. The answer's messages are written.
  Task<Result<McpAnswer>> deliver(std::string line, std::shared_ptr<Flight> flight, bool& answered);
  Task<Status> open_session();
  Task<void> listen();
  Task<Status> endpoint_there(Deadline deadline);
  McpRequest request_for(const std::string& line, bool stateless) const;

  asio::io_context& io_;
  const VmDirectory& vm_;
  std::string target_;
  Write write_;
  std::chrono::milliseconds patience_;

  bool reachable_ = false;
  bool listening_ = false;
  bool finished_ = false;
  std::string initialize_;  // the client's handshake, as it sent it
  std::string initialized_;
  std::string session_;
  std::string version_;
  std::string last_event_;
  std::uint64_t sessions_ = 0;  // counts up with each one that was opened
  std::map<std::string, std::shared_ptr<Flight>> flights_;  // by the JSON of the id
  std::shared_ptr<Flight> listener_;
};

}  // namespace agent_vm

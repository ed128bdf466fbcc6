// One HTTP exchange with a VM's MCP endpoint, whose answer is a message or a stream of them.
#pragma once

#include <boost/beast/core/tcp_stream.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"
#include "os/async.h"
#include "state/vm_directory.h"

namespace agent_vm {

// Where a VM's endpoint is, and what it takes to be let in.
struct McpEndpoint {
  std::string address;  // numeric
  std::uint16_t port = 0;
  std::string host;  // the Host header
  std::string token;
};
// As the VM's records say now: a restart may have moved it, and the token may have been changed.
Result<McpEndpoint> mcp_endpoint_of(const VmDirectory& vm);

struct McpRequest {
  std::string method = "POST";
  std::string target = "/mcp";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

struct McpAnswer {
  int status = 0;
  std::string session_id;
  bool stream = false;  // its messages were handed on as they came
  std::string body;     // of an answer that is no stream
};

class McpExchange {
 public:
  // A message of a stream, and its event id (empty without).
  using OnMessage = std::function<void(const std::string& message, const std::string& id)>;
  // kNotRunning: nothing was sent, because nobody listens. Any other error: the endpoint may have
  // got the request. `until_answer` bounds the time until the answer begins, not that of a stream.
  Task<Result<McpAnswer>> run(McpEndpoint endpoint, McpRequest request, OnMessage on_message,
                              Deadline until_answer);
  // Ends it from outside, as a client that goes away.
  void cancel();
  bool cancelled() const { return cancelled_; }

 private:
  Task<Result<McpAnswer>> exchange(McpEndpoint endpoint, McpRequest request, OnMessage on_message,
                                   Deadline until_answer);

  std::unique_ptr<boost::beast::tcp_stream> stream_;
  bool cancelled_ = false;
};

}  // namespace agent_vm

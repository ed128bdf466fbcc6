// What stands behind a session: a server that takes lines and gives lines.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "gateway/config.h"
#include "gateway/server_state.h"
#include "process/child.h"
#include "workspace/server.h"

namespace agent_vm::gateway {

class Backend {
 public:
  struct Events {
    std::function<void(std::string_view line)> on_line;
    std::function<void(std::string reason)> on_exit;  // once; nothing comes after it
  };

  virtual ~Backend() = default;
  virtual Status start(Events events) = 0;
  virtual void send(std::string line) = 0;
  // Bytes it has not taken yet: what a caller waits for before it sends more.
  virtual std::size_t queued_bytes() const { return 0; }
  virtual void when_drained_below(std::size_t bytes, std::function<void()> action) = 0;
  virtual void pause(bool /*paused*/) {}
  // No more events. A process is ended by the policy and reaped, in the background.
  virtual void stop(const process::StopPolicy& policy) = 0;
  virtual pid_t pid() const { return 0; }
};

// A process of its own for this session. Its stdout must carry one JSON-RPC message a line.
std::unique_ptr<Backend> make_stdio_backend(boost::asio::any_io_executor executor,
                                            StdioServerConfig config,
                                            const std::string& default_cwd, ServerState& state,
                                            std::size_t max_line_bytes);

std::unique_ptr<Backend> make_workspace_backend(boost::asio::any_io_executor executor,
                                                std::shared_ptr<workspace::Service> service);

}  // namespace agent_vm::gateway

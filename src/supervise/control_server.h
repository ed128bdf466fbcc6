// Answers requests on control.sock.
#pragma once

#include <boost/asio/local/stream_protocol.hpp>

#include "base/result.h"
#include "os/async.h"
#include "supervise/supervisor.h"

namespace agent_vm {

class ControlServer {
 public:
  // Binds control.sock (0600) in the VM's directory.
  static Result<std::unique_ptr<ControlServer>> listen(asio::io_context& io, int vm_directory,
                                                       Supervisor& supervisor);
  ~ControlServer();

 private:
  ControlServer(asio::io_context& io, Fd directory, Fd listener, Supervisor& supervisor);
  Task<void> accept_all();
  Task<void> serve(Fd socket);
  Task<Result<nlohmann::json>> answer(nlohmann::json request);

  asio::io_context& io_;
  Fd directory_;
  asio::local::stream_protocol::acceptor acceptor_;
  Supervisor& supervisor_;
  bool stopping_ = false;
  std::string stopped_how_;
  Event stopped_;
};

}  // namespace agent_vm

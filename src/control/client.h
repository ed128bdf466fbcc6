// The command's side of the control socket. Blocking, under a deadline: a supervisor that hangs
// makes a command fail with a reason, never hang too (F16).
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

class ControlClient {
 public:
  using Progress = std::function<void(const std::string& step, const std::string& text)>;

  // Takes a connected stream socket.
  explicit ControlClient(Fd socket) : socket_(std::move(socket)) {}
  // Connects to the supervisor of the VM whose directory is open as `vm_directory`. kNotRunning
  // when nobody listens.
  static Result<ControlClient> connect(int vm_directory);

  Status send(const nlohmann::json& request);
  // The result of the request, after any number of progress messages. kNotRunning when the
  // supervisor ends without an answer, kTimeout at the deadline.
  Result<nlohmann::json> receive(const Deadline& deadline, const Progress& on_progress);

  Result<nlohmann::json> call(const nlohmann::json& request, const Deadline& deadline,
                              const Progress& on_progress = {});

 private:
  Result<std::string> read_line(const Deadline& deadline);

  Fd socket_;
  std::string buffer_;
};

}  // namespace agent_vm

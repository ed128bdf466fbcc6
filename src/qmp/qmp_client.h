// QEMU's machine protocol. Replies are matched to commands by id, each under a deadline; a QEMU
// that has been taken over can lie here, but not make us wait, grow or crash.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "qmp/json_stream.h"

namespace agent_vm {

class QmpClient {
 public:
  using EventHandler = std::function<void(const std::string& name, const nlohmann::json& data)>;

  QmpClient(asio::io_context& io, Fd socket);
  ~QmpClient();

  // Reads the greeting, leaves negotiation mode and starts to dispatch replies and events.
  Task<Status> start(EventHandler on_event, Deadline deadline);

  // The "return" value; a QMP error is an Error that quotes it.
  Task<Result<nlohmann::json>> execute(std::string command, nlohmann::json arguments,
                                       Deadline deadline);
  // Hands QEMU a descriptor under a name that later commands use.
  Task<Status> pass_descriptor(std::string name, int descriptor, Deadline deadline);

  void close();

 private:
  struct Pending {
    Event done;
    std::optional<Result<nlohmann::json>> result;
  };
  // Shared with the reading coroutine, which may outlive this object by one turn of the loop.
  struct Shared {
    explicit Shared(JsonStream s) : stream(std::move(s)) {}
    JsonStream stream;
    std::map<std::uint64_t, std::shared_ptr<Pending>> pending;
    std::uint64_t next_id = 1;
    EventHandler on_event;
    bool closed = false;
  };
  static Task<void> read_all(std::shared_ptr<Shared> shared);
  static void dispatch(Shared& shared, const nlohmann::json& message);
  static void fail_pending(Shared& shared, const Error& error);
  static Task<Result<nlohmann::json>> await_reply(std::shared_ptr<Shared> shared, std::uint64_t id,
                                                  std::shared_ptr<Pending> pending,
                                                  std::string command, Deadline deadline);

  asio::io_context& io_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace agent_vm

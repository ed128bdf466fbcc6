// A server process that all clients without a session share which declare the same capabilities:
// see mcp/shared_server.h for how they are kept apart.
#pragma once

#include "gateway/live_server.h"
#include "mcp/shared_server.h"

namespace agent_vm::gateway {

// Seconds on a clock that a change of the date does not touch: what request states expire on.
inline std::int64_t steady_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(Clock::now().time_since_epoch()).count();
}

class LiveShared : public LiveServer {
 public:
  LiveShared(boost::asio::any_io_executor executor, std::shared_ptr<ServerEntry> server,
             const Limits& limits, std::uint64_t number, const mcp::StatelessRequest& first,
             const mcp::StateSigner& signer)
      : LiveServer(std::move(executor), server, limits),
        core_(number, first.capabilities, first.client_info, signer, server->knowledge) {}

  mcp::SharedServer& core() { return core_; }
  mcp::ServerSide& side() override { return core_; }
  std::string label() const override { return "clients without a session"; }

  // A request that was given this process and is still on its way to it: it counts as being there.
  class Claim {
   public:
    explicit Claim(std::shared_ptr<LiveShared> live) : live_(std::move(live)) { ++live_->claims_; }
    ~Claim() { --live_->claims_; }
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

   private:
    std::shared_ptr<LiveShared> live_;
  };
  bool claimed() const { return claims_ > 0; }
  bool unused() const { return idle() && !claimed(); }

  tl::expected<mcp::SharedServer::Accepted, mcp::Refusal> request(
      const mcp::StatelessRequest& request) {
    touch();
    auto accepted = core_.request(request, steady_seconds());
    if (accepted) send_all(std::move(accepted->to_server));
    return accepted;
  }
  void cancel(mcp::StreamId stream) {
    send_all(core_.cancel(stream));
    delivered();
  }
  void conclude_with_input(mcp::StreamId stream) {
    core_.conclude_with_input(stream, steady_seconds());
    changed().notify();
  }
  void sweep() { send_all(core_.sweep(steady_seconds())); }

 private:
  mcp::SharedServer core_;
  std::size_t claims_ = 0;
};

}  // namespace agent_vm::gateway

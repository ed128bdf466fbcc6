// A session with a server process of its own.
//
// Why. A stdio server is written for one client: it is initialised once, with that client's
// capabilities, and addresses "the client" when it samples, elicits, asks for roots, logs or
// announces a change. Behind a shared process the gateway would have to guess which session such a
// message is for, and a wrong guess hands one client's conversation to another. With a process for
// each session there is nothing to guess, the ids of the two ends need no translation, messages
// pass as the bytes they are, a crash or a stall is felt by one session only, and a slow client can
// be answered with back-pressure instead of with a buffer. What it costs is memory for each
// session, so that an idle session's process is stopped after a while and started again, with the
// recorded handshake, when the session is used. (Clients without sessions: live_shared.h.)
#pragma once

#include <functional>

#include "gateway/live_server.h"
#include "mcp/session.h"

namespace agent_vm::gateway {

class LiveSession : public LiveServer {
 public:
  using Save = std::function<void(const mcp::SessionRecord&)>;
  // `save` runs when the session's record is worth saving (again).
  LiveSession(boost::asio::any_io_executor executor, std::shared_ptr<ServerEntry> server,
              mcp::Session core, const Limits& limits, Save save)
      : LiveServer(std::move(executor), std::move(server), limits),
        core_(std::move(core)),
        save_(std::move(save)) {}

  const std::string& id() const { return core_.id(); }
  mcp::Session& core() { return core_; }
  mcp::ServerSide& side() override { return core_; }
  std::string label() const override { return "session " + core_.id().substr(0, 6) + "..."; }

  // Hands a client's message on. The server must be ready.
  tl::expected<mcp::Session::Accepted, mcp::Refusal> post(std::string_view body) {
    touch();
    auto accepted = core_.post(body);
    if (!accepted) return accepted;
    send_all(std::move(accepted->to_server));
    if (accepted->record_changed) save();
    if (!accepted->touched.empty()) changed().notify();
    return accepted;
  }

 protected:
  void on_effects(const mcp::ServerSide::FromServer& effects) override {
    if (effects.established) save();
  }

 private:
  void save() {
    if (save_ && core_.established()) save_(core_.record());
  }
  mcp::Session core_;
  Save save_;
};

}  // namespace agent_vm::gateway

// The HTTP face of the gateway: who may ask, and what each route does.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <optional>
#include <string>

#include "gateway/connection.h"
#include "gateway/registry.h"
#include "http/route.h"

namespace agent_vm::gateway {

class Endpoint {
 public:
  Endpoint(const Config& config, Registry& registry, std::string token)
      : config_(config), registry_(registry), token_(std::move(token)) {}

  // Serves one connection to its end.
  boost::asio::awaitable<void> serve(boost::asio::ip::tcp::socket socket);

  // From the next request on. Sessions stay: they are bound to whoever holds the current token.
  void set_token(std::string token) { token_ = std::move(token); }
  // New requests are refused, open streams end; requests in flight may finish.
  void drain();
  std::size_t connections() const { return connections_; }
  // Requests whose response is still to come.
  std::size_t busy() const { return busy_; }
  Notifier& changed() { return changed_; }

 private:
  using Session = std::shared_ptr<LiveSession>;
  using Shared = std::shared_ptr<LiveShared>;
  using Server = std::shared_ptr<ServerEntry>;
  // The response to send; nothing when the handler has answered by itself.
  using Answer = boost::asio::awaitable<std::optional<Response>>;

  boost::asio::awaitable<void> handle(Connection& connection);
  // The checks that come before everything else, and what needs no session: preflight and health.
  std::optional<Response> admit(Connection& connection, const http::Route& route);
  Response health(Connection& connection);

  Answer mcp(Connection& connection, const http::Route& route);
  Answer post(Connection& connection, const Server& server);
  Answer post_message(Connection& connection, Session session, std::string body, bool initialize);
  // A message of revision 2026-07-28 (endpoint_stateless.cc).
  Answer stateless(Connection& connection, const Server& server, std::string body);
  // `listening`: the raw id of a request that lasts until the client or the gateway ends it.
  Answer respond_stateless(Connection& connection, Shared live, mcp::StreamId id,
                           std::string listening);
  Answer get(Connection& connection, const Server& server);
  Answer remove(Connection& connection, const Server& server);
  Answer legacy_stream(Connection& connection, const Server& server, const http::Route& route);
  Answer legacy_post(Connection& connection, const Server& server, const http::Route& route);

  // The answer to a POSTed request: one JSON object when it comes soon and alone, else a stream.
  Answer respond_on(Connection& connection, Session session, mcp::StreamId id, bool batch,
                    bool initialize);
  // Streams events after `cursor` until the stream is finished, replaced, or the client leaves.
  boost::asio::awaitable<void> stream_events(Connection& connection, Session session,
                                             mcp::StreamId id, std::uint64_t epoch,
                                             std::uint64_t cursor);

  const Config& config_;
  Registry& registry_;
  std::string token_;
  bool draining_ = false;
  std::size_t connections_ = 0;
  std::size_t busy_ = 0;
  Notifier changed_;
};

}  // namespace agent_vm::gateway

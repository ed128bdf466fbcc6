#include "gateway/endpoint.h"

#include <algorithm>
#include <array>

#include "base/log.h"
#include "base/text.h"
#include "gateway/refusal.h"
#include "http/access.h"

namespace agent_vm::gateway {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kEvents = "text/event-stream";
// Two of one of these could be read differently by two readers.
constexpr std::array<const char*, 8> kSingleHeaders = {
    "host",         "origin",     "authorization", "mcp-session-id",
    "content-type", "mcp-method", "mcp-name",      "mcp-protocol-version"};
// How long an answer may take before a stream is opened for it, so that the client sees a header
// and keep-alives instead of silence.
constexpr auto kSoon = 2s;
constexpr auto kAtOnce = 50ms;
constexpr auto kKeepAlive = 15s;
// What a client should wait before it reconnects a broken stream.
constexpr int kRetryMs = 1000;

Headers preflight_headers() {
  return {{"Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS"},
          {"Access-Control-Allow-Headers",
           "Authorization, Content-Type, Accept, Mcp-Session-Id, MCP-Protocol-Version, Mcp-Method, "
           "Mcp-Name, Last-Event-ID"},
          {"Access-Control-Max-Age", "600"}};
}

// Counts itself for as long as it lives.
class Counted {
 public:
  Counted(std::size_t& counter, Notifier& changed) : counter_(counter), changed_(changed) {
    ++counter_;
  }
  ~Counted() {
    --counter_;
    changed_.notify();
  }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::size_t& counter_;
  Notifier& changed_;
};

}  // namespace

asio::awaitable<void> Endpoint::serve(asio::ip::tcp::socket socket) {
  const Counted counted(connections_, changed_);
  Connection connection(std::move(socket), config_.limits);
  if (connections_ > config_.limits.max_connections) {
    co_await connection.finish();
    co_return;
  }
  do {
    if (!co_await connection.read_header()) break;
    co_await handle(connection);
  } while (connection.keep_alive() && !draining_);
  co_await connection.finish();
}

std::optional<Response> Endpoint::admit(Connection& connection, const http::Route& route) {
  for (const char* name : kSingleHeaders) {
    if (connection.header_repeated(name)) {
      return refusal(400, mcp::kInvalidRequest, fmt::format("the header {} comes twice", name));
    }
  }
  if (!config_.hosts.allows(connection.header("host").value_or(""))) {
    return refusal(403, mcp::kInvalidRequest, "this Host is not served here");
  }
  const std::optional<std::string> origin = connection.header("origin");
  if (!config_.origins.allows(origin)) {
    return refusal(403, mcp::kInvalidRequest, "this Origin is not allowed");
  }
  if (origin) {
    connection.add_header("Access-Control-Allow-Origin", *origin);
    connection.add_header("Access-Control-Expose-Headers", "Mcp-Session-Id, WWW-Authenticate");
    connection.add_header("Vary", "Origin");
  }
  if (route.kind == http::RouteKind::kUnknown) {
    return refusal(404, mcp::kInvalidRequest, "there is nothing at this address");
  }
  if (connection.method() == "OPTIONS") {  // a browser's preflight carries no token
    Response response;
    response.status = 204;
    response.headers = preflight_headers();
    return response;
  }
  const auto authorization = connection.header("authorization");
  if (route.kind == http::RouteKind::kHealth && !authorization) return health(connection);
  if (!http::bearer_matches(authorization.value_or(""), token_)) {
    return refusal(401, mcp::kInvalidRequest,
                   "a bearer token is needed: Authorization: Bearer ...");
  }
  if (draining_) {
    connection.close_after_response();
    return refusal(503, mcp::kServerUnavailable, "the gateway is being stopped");
  }
  if (route.kind == http::RouteKind::kHealth) return health(connection);
  return std::nullopt;
}

// A trap, met here: GCC 12 may destroy a temporary twice that stands in an expression with co_await
// (a conditional of strings, an aggregate in braces). So nothing below builds its arguments inside
// such an expression: handlers return their Response, and what is awaited gets named objects.
asio::awaitable<void> Endpoint::handle(Connection& connection) {
  const Counted counted(busy_, changed_);
  const http::Route route = http::parse_target(connection.target());
  std::optional<Response> response = admit(connection, route);
  if (!response) response = co_await mcp(connection, route);
  if (response) co_await connection.respond(std::move(*response));
}

Response Endpoint::health(Connection& connection) {
  if (connection.method() != "GET" && connection.method() != "HEAD") {
    connection.add_header("Allow", "GET, HEAD");
    return refusal(405, mcp::kInvalidRequest, "use GET");
  }
  nlohmann::ordered_json body = {{"status", draining_ ? "stopping" : "ok"}};
  // The caller checked the token before it came here with one.
  if (connection.header("authorization")) {
    body["version"] = AGENT_VM_VERSION;
    body["default_server"] = config_.default_server;
    body["connections"] = connections_;
    body["servers"] = registry_.details();
  }
  Response response;
  response.body =
      body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  return response;
}

Endpoint::Answer Endpoint::mcp(Connection& connection, const http::Route& route) {
  const Server server = registry_.server(route.server);
  if (server == nullptr) {
    co_return refusal(404, mcp::kInvalidRequest,
                      fmt::format("there is no server {}", escape_line(route.server)));
  }
  const std::string method = connection.method();
  std::string allowed;
  if (route.kind == http::RouteKind::kMcp) {
    if (method == "POST") co_return co_await post(connection, server);
    if (method == "GET") co_return co_await get(connection, server);
    if (method == "DELETE") co_return co_await remove(connection, server);
    allowed = "GET, POST, DELETE, OPTIONS";
  } else if (route.kind == http::RouteKind::kLegacySse) {
    if (method == "GET") co_return co_await legacy_stream(connection, server, route);
    allowed = "GET, OPTIONS";
  } else {
    if (method == "POST") co_return co_await legacy_post(connection, server, route);
    allowed = "POST, OPTIONS";
  }
  connection.add_header("Allow", allowed);
  co_return refusal(405, mcp::kInvalidRequest, "use one of: " + allowed);
}

Endpoint::Answer Endpoint::post(Connection& connection, const Server& server) {
  if (!http::media_type_is(connection.header("content-type").value_or(""), kJson)) {
    co_return refusal(415, mcp::kInvalidRequest, "the Content-Type must be application/json");
  }
  const std::string accept = connection.header("accept").value_or("");
  if (!http::accepts(accept, kJson) || !http::accepts(accept, kEvents)) {
    co_return refusal(406, mcp::kInvalidRequest,
                      "the Accept header must list application/json and text/event-stream");
  }
  std::optional<std::string> body = co_await connection.read_body();
  if (!body) co_return std::nullopt;

  // Which revision a message is of, it says itself; a session's message that claims nothing else
  // needs no look.
  const std::string version = connection.header("mcp-protocol-version").value_or("");
  const bool of_session = connection.header("mcp-session-id").has_value() &&
                          (version.empty() || mcp::is_handshake_version(version));
  if (!of_session) {
    const auto looked = mcp::parse_message(*body);
    if (looked && mcp::is_stateless(*looked, version)) {
      co_return co_await stateless(connection, server, std::move(*body));
    }
  }
  if (const auto id = connection.header("mcp-session-id")) {
    const Session session = registry_.find(*id, *server);
    if (session == nullptr) {
      co_return refusal(404, mcp::kInvalidRequest,
                        "this session is unknown or has ended; initialize again");
    }
    co_return co_await post_message(connection, session, std::move(*body), false);
  }

  const auto envelope = mcp::parse_message(*body);
  if (!envelope) {
    co_return refusal(mcp::Refusal{400, envelope.error()});
  }
  if (envelope->kind != mcp::MessageKind::kRequest || envelope->method != "initialize") {
    co_return refusal(400, mcp::kInvalidRequest,
                      "the header Mcp-Session-Id is missing; a session begins with initialize",
                      envelope->id.empty() ? "null" : std::string(envelope->id));
  }
  auto session = registry_.create(server);
  if (!session) {
    co_return refusal(503, mcp::kServerUnavailable, session.error().message(),
                      std::string(envelope->id));
  }
  std::optional<Response> response =
      co_await post_message(connection, *session, std::move(*body), true);
  // A handshake that failed leaves nothing to come back to.
  if (!(*session)->core().established()) registry_.remove((*session)->id());
  co_return response;
}

Endpoint::Answer Endpoint::post_message(Connection& connection, Session session, std::string body,
                                        bool initialize) {
  session->touch();
  const auto deadline = Clock::now() + config_.limits.start_timeout;
  Status ready = co_await session->ready(deadline);
  if (ready) ready = co_await session->writable(deadline);
  if (!ready) {
    const auto envelope = mcp::parse_message(body);
    const std::string id = envelope && !envelope->id.empty() ? std::string(envelope->id) : "null";
    co_return refusal(ready.error().kind() == ErrorKind::kNotFound ? 404 : 503,
                      mcp::kServerUnavailable, ready.error().message(), id);
  }
  const auto accepted = session->post(body);
  if (!accepted) {
    co_return refusal(accepted.error());
  }
  if (!accepted->stream) {
    Response response;
    response.status = 202;
    co_return response;
  }
  std::string().swap(body);  // it may be large, and the answer may take hours
  std::optional<Response> response =
      co_await respond_on(connection, session, *accepted->stream, accepted->is_batch, initialize);
  session->touch();
  co_return response;
}

Endpoint::Answer Endpoint::respond_on(Connection& connection, Session session, mcp::StreamId id,
                                      bool batch, bool initialize) {
  const std::uint64_t epoch = session->core().stream(id)->attach();
  // A handshake may include an installation, and its client needs the outcome with the header.
  const auto soon = Clock::now() + (initialize ? config_.limits.start_timeout : kSoon);
  const auto ready = [&] {
    const mcp::EventStream* stream = session->core().stream(id);
    return stream == nullptr || connection.peer_closed() || stream->finished() ||
           stream->last() > 0;
  };
  const auto alone = [&] {
    const mcp::EventStream* stream = session->core().stream(id);
    return stream != nullptr && stream->finished() && stream->last() == 1 && !batch;
  };
  // Most answers come at once, and nobody has to look for a client that goes away meanwhile.
  if (!batch && !ready()) co_await session->changed().wait(Clock::now() + kAtOnce, ready);
  const auto watch = alone() ? Connection::PeerWatch() : connection.watch_peer(session->changed());
  while (!batch && !ready() && Clock::now() < soon) co_await session->changed().wait(soon, ready);
  const mcp::EventStream* stream = session->core().stream(id);
  if (stream == nullptr) co_return std::nullopt;
  if (connection.peer_closed()) {
    // No event id was told, so that nothing can be resumed; but the request goes on.
    session->core().drop_stream(id);
    connection.close_after_response();
    co_return std::nullopt;
  }
  if (alone()) {
    Response response;
    response.body = *stream->after(0)->message;
    if (initialize && session->core().established()) {
      response.headers.emplace_back("Mcp-Session-Id", session->id());
    }
    session->core().drop_stream(id);
    session->delivered();
    co_return response;
  }
  Headers headers;
  if (initialize) headers.emplace_back("Mcp-Session-Id", session->id());
  if (co_await connection.begin_events(std::move(headers))) {
    co_await stream_events(connection, session, id, epoch, 0);
  } else if (auto* left = session->core().stream(id)) {
    left->detach(epoch);
  }
  co_return std::nullopt;
}

asio::awaitable<void> Endpoint::stream_events(Connection& connection, Session session,
                                              mcp::StreamId id, std::uint64_t epoch,
                                              std::uint64_t cursor) {
  // Primes the client to come back with this id (from 2025-11-25 on; older clients would take the
  // empty data for a broken message).
  bool connected = true;
  if (session->core().record().protocol_version >= "2025-11-25") {
    const std::string prime = fmt::format(
        "id: {}\nretry: {}\ndata: ", mcp::to_string(mcp::EventId{id, cursor}), kRetryMs);
    connected = co_await connection.send_event(prime, "");
  }
  auto next_keep_alive = Clock::now() + kKeepAlive;
  bool finished = false;
  while (connected && !connection.peer_closed()) {
    mcp::EventStream* stream = session->core().stream(id);
    if (stream == nullptr || stream->epoch() != epoch) break;
    if (const auto event = stream->after(cursor)) {
      const std::string prefix = fmt::format("id: {}\nevent: message\ndata: ",
                                             mcp::to_string(mcp::EventId{id, event->sequence}));
      connected = co_await connection.send_event(prefix, *event->message);
      if (!connected) break;
      cursor = event->sequence;
      // The stream may have gone while we wrote.
      stream = session->core().stream(id);
      if (stream != nullptr && stream->epoch() == epoch) stream->delivered(cursor);
      session->delivered();
      next_keep_alive = Clock::now() + kKeepAlive;
      continue;
    }
    finished = stream->finished();
    if (finished || session->closed() || (draining_ && id == mcp::kStandaloneStream)) break;
    if (Clock::now() >= next_keep_alive) {
      connected = co_await connection.send_event(": keep-alive", "");
      next_keep_alive = Clock::now() + kKeepAlive;
      continue;
    }
    co_await session->changed().wait(next_keep_alive);
  }
  if (connected && !connection.peer_closed()) co_await connection.end_events();
  if (auto* stream = session->core().stream(id)) {
    stream->detach(epoch);
    if (finished) session->core().retire_stream(id);
  }
  session->delivered();
  session->touch();
}

Endpoint::Answer Endpoint::get(Connection& connection, const Server& server) {
  if (!http::accepts(connection.header("accept").value_or(""), kEvents)) {
    co_return refusal(406, mcp::kInvalidRequest, "the Accept header must list text/event-stream");
  }
  const auto id = connection.header("mcp-session-id");
  if (!id) {
    co_return refusal(400, mcp::kInvalidRequest, "the header Mcp-Session-Id is missing");
  }
  const Session session = registry_.find(*id, *server);
  if (session == nullptr) {
    co_return refusal(404, mcp::kInvalidRequest,
                      "this session is unknown or has ended; initialize again");
  }
  mcp::EventId from{mcp::kStandaloneStream,
                    session->core().stream(mcp::kStandaloneStream)->delivered()};
  if (const auto last = connection.header("last-event-id"); last && !last->empty()) {
    const auto parsed = mcp::parse_event_id(*last);
    const mcp::EventStream* stream = parsed ? session->core().stream(parsed->stream) : nullptr;
    if (stream == nullptr || !stream->can_resume_at(parsed->sequence)) {
      co_return refusal(400, mcp::kInvalidRequest, "this Last-Event-ID cannot be resumed any more");
    }
    from = *parsed;
  }
  // A newer connection takes the stream over: the older one may be half-open.
  const std::uint64_t epoch = session->core().stream(from.stream)->attach();
  session->touch();
  session->changed().notify();
  const auto watch = connection.watch_peer(session->changed());
  Headers headers;
  headers.emplace_back("Mcp-Session-Id", session->id());
  if (co_await connection.begin_events(std::move(headers))) {
    co_await stream_events(connection, session, from.stream, epoch, from.sequence);
  } else if (auto* stream = session->core().stream(from.stream)) {
    stream->detach(epoch);
  }
  co_return std::nullopt;
}

Endpoint::Answer Endpoint::remove(Connection& connection, const Server& server) {
  const auto id = connection.header("mcp-session-id");
  if (!id) {
    co_return refusal(400, mcp::kInvalidRequest, "the header Mcp-Session-Id is missing");
  }
  if (registry_.find(*id, *server) == nullptr) {
    co_return refusal(404, mcp::kInvalidRequest, "this session is unknown or has ended");
  }
  registry_.remove(*id);
  Response response;
  co_return response;
}

// The transport of 2024-11-05: one stream for everything, whose first event tells where to POST.
Endpoint::Answer Endpoint::legacy_stream(Connection& connection, const Server& server,
                                         const http::Route& route) {
  const auto created = registry_.create(server, true);
  if (!created) {
    co_return refusal(503, mcp::kServerUnavailable, created.error().message());
  }
  const Session session = *created;
  const auto watch = connection.watch_peer(session->changed());
  const std::string prefix = route.server.empty() ? "" : "/servers/" + route.server;
  const std::uint64_t epoch = session->core().stream(mcp::kStandaloneStream)->attach();
  const std::string where =
      fmt::format("event: endpoint\ndata: {}/messages?sessionId={}", prefix, session->id());
  Headers headers;
  bool connected = co_await connection.begin_events(std::move(headers));
  if (connected) connected = co_await connection.send_event(where, "");
  if (connected) {
    co_await stream_events(connection, session, mcp::kStandaloneStream, epoch, 0);
  }
  registry_.remove(session->id());
  co_return std::nullopt;
}

Endpoint::Answer Endpoint::legacy_post(Connection& connection, const Server& server,
                                       const http::Route& route) {
  const std::optional<std::string> body = co_await connection.read_body();
  if (!body) co_return std::nullopt;
  const Session session = registry_.find(http::query_value(route.query, "sessionId"), *server);
  if (session == nullptr) {
    co_return refusal(404, mcp::kInvalidRequest, "this session is unknown or has ended");
  }
  const auto deadline = Clock::now() + config_.limits.start_timeout;
  Status ready = co_await session->ready(deadline);
  if (ready) ready = co_await session->writable(deadline);
  if (!ready) {
    co_return refusal(503, mcp::kServerUnavailable, ready.error().message());
  }
  const auto accepted = session->post(*body);
  if (!accepted) {
    co_return refusal(accepted.error());
  }
  Response response;
  response.status = 202;
  co_return response;
}

void Endpoint::drain() {
  draining_ = true;
  registry_.notify_all();  // open GET streams end now
  changed_.notify();
}

}  // namespace agent_vm::gateway

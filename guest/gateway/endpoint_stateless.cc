// Requests of revision 2026-07-28: each stands for itself, its response stream is its own, and a
// client that goes away has cancelled it.
#include "gateway/endpoint.h"
#include "gateway/refusal.h"
#include "mcp/json_object.h"

namespace agent_vm::gateway {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

constexpr auto kSoon = 2s;
constexpr auto kKeepAlive = 15s;
// Servers ask several things one after the other; when nothing has come for a moment, it is all.
constexpr auto kQuiet = 20ms;
constexpr auto kQuietAtMost = 200ms;

// The status that goes with a JSON-RPC error, where this revision fixes one.
int status_of(std::string_view message) {
  const std::string_view code = mcp::member_of(mcp::member_of(message, "error"), "code");
  if (code == std::to_string(mcp::kMethodNotFound)) return 404;
  const bool bad_request = code == std::to_string(mcp::kHeaderMismatch) ||
                           code == std::to_string(mcp::kMissingClientCapability) ||
                           code == std::to_string(mcp::kUnsupportedProtocolVersion);
  return bad_request ? 400 : 200;
}

}  // namespace

Endpoint::Answer Endpoint::stateless(Connection& connection, const Server& server,
                                     std::string body) {
  const auto envelope = mcp::parse_message(body);
  if (!envelope) co_return refusal(mcp::Refusal{400, envelope.error()});
  if (envelope->kind == mcp::MessageKind::kResponse) {
    co_return refusal(400, mcp::kInvalidRequest, "this revision has no responses of clients");
  }
  if (envelope->kind == mcp::MessageKind::kNotification) {
    Response response;  // this revision has none that would do anything
    response.status = 202;
    co_return response;
  }
  mcp::MirrorHeaders headers;
  headers.protocol_version = connection.header("mcp-protocol-version");
  headers.method = connection.header("mcp-method");
  headers.name = connection.header("mcp-name");
  headers.params = connection.headers_below("mcp-param-");
  const auto request = mcp::parse_stateless(body, *envelope, headers);
  if (!request) co_return refusal(request.error());
  const auto shared = registry_.shared(server, *request);
  if (!shared) co_return refusal(shared.error());
  const Shared live = *shared;
  auto claim = std::make_unique<LiveShared::Claim>(live);
  std::string().swap(body);

  const auto deadline = Clock::now() + config_.limits.start_timeout;
  Status ready = co_await live->ready(deadline);
  if (ready) ready = co_await live->writable(deadline);
  if (!ready) {
    co_return refusal(503, mcp::kServerUnavailable, ready.error().message(), request->id);
  }
  const auto accepted = live->request(*request);
  claim.reset();
  if (!accepted) co_return refusal(accepted.error());
  const std::string listening = request->method == "subscriptions/listen" ? request->id : "";
  std::optional<Response> response =
      co_await respond_stateless(connection, live, accepted->stream, listening);
  live->touch();
  co_return response;
}

Endpoint::Answer Endpoint::respond_stateless(Connection& connection, Shared live, mcp::StreamId id,
                                             std::string listening) {
  const auto watch = connection.watch_peer(live->changed());
  live->core().stream(id)->attach();
  const bool lasting = !listening.empty();
  const auto soon = Clock::now() + (lasting ? 0s : kSoon);
  auto next_keep_alive = Clock::now() + kKeepAlive;
  std::optional<Clock::time_point> asked;  // since when the server wants an input
  std::uint64_t cursor = 0;
  bool streaming = false;
  bool connected = true;
  while (connected && !connection.peer_closed()) {
    mcp::EventStream* stream = live->core().stream(id);
    if (stream == nullptr) break;
    const auto now = Clock::now();
    if (live->core().input_wanted(id)) {
      if (!asked) asked = now;
      const auto quiet = now + kQuiet;
      if (now < *asked + kQuietAtMost) co_await live->changed().wait(quiet);
      const bool more = Clock::now() < quiet && Clock::now() < *asked + kQuietAtMost;
      if (!more && live->core().input_wanted(id)) live->conclude_with_input(id);
      continue;
    }
    asked.reset();
    const auto event = stream->after(cursor);
    if (event && !streaming && stream->finished() && stream->last() == 1) {
      Response response;
      response.body = *event->message;
      response.status = status_of(response.body);
      live->core().drop_stream(id);
      live->delivered();
      co_return response;
    }
    if (!streaming && (event || now >= soon)) {
      Headers none;
      connected = co_await connection.begin_events(std::move(none));
      streaming = true;
      continue;
    }
    if (event) {
      connected = co_await connection.send_event("event: message\ndata: ", *event->message);
      cursor = event->sequence;
      // The stream may have gone while we wrote.
      if (mcp::EventStream* same = live->core().stream(id)) same->delivered(cursor);
      live->delivered();
      next_keep_alive = Clock::now() + kKeepAlive;
      continue;
    }
    if (stream->finished() || live->closed() || (draining_ && lasting)) break;
    if (streaming && now >= next_keep_alive) {
      connected = co_await connection.send_event(": keep-alive", "");
      next_keep_alive = Clock::now() + kKeepAlive;
      continue;
    }
    const auto wake = streaming ? next_keep_alive : soon;
    co_await live->changed().wait(wake);
  }
  connection.close_after_response();
  if (connected && streaming && !connection.peer_closed()) {
    if (lasting) {  // ended by us, and not by accident
      const std::string end = fmt::format(
          R"({{"jsonrpc":"2.0","id":{},"result":{{"resultType":"complete"}}}})", listening);
      co_await connection.send_event("event: message\ndata: ", end);
    }
    co_await connection.end_events();
  }
  live->cancel(id);  // of what had ended it only forgets the stream
  co_return std::nullopt;
}

}  // namespace agent_vm::gateway

#include "control/mcp_exchange.h"

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "base/text.h"
#include "control/event_parser.h"

namespace agent_vm {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
// What the gateway in the guest lets through as one message, with some room.
constexpr std::size_t kMaxMessage = 64U << 20U;

using Parser = http::response_parser<http::buffer_body>;

// Reads one piece of the body into `piece`; an empty one at its end.
Task<beast::error_code> read_piece(beast::tcp_stream& stream, beast::flat_buffer& buffer,
                                   Parser& parser, std::string& piece) {
  std::array<char, 65536> room;
  parser.get().body().data = room.data();
  parser.get().body().size = room.size();
  auto [error, bytes] = co_await http::async_read_some(stream, buffer, parser, kTuple);
  if (error == http::error::need_buffer) error = {};
  piece.assign(room.data(), room.size() - parser.get().body().size);
  co_return error;
}

}  // namespace

Result<McpEndpoint> mcp_endpoint_of(const VmDirectory& vm) {
  const VmConfig config = TRY(vm.read_config());
  McpEndpoint endpoint;
  endpoint.address = config.bind_address;
  endpoint.port = config.port;
  const bool ipv6 = config.host.find(':') != std::string::npos;
  endpoint.host = fmt::format("{}:{}", ipv6 ? "[" + config.host + "]" : config.host, config.port);
  endpoint.token = std::string(trim(TRY(vm.read_small_file(vm_files::kMcpToken))));
  return endpoint;
}

void McpExchange::cancel() {
  cancelled_ = true;
  if (stream_) stream_->close();
}

Task<Result<McpAnswer>> McpExchange::run(McpEndpoint endpoint, McpRequest request,
                                         OnMessage on_message, Deadline until_answer) {
  auto answer = co_await exchange(std::move(endpoint), std::move(request), std::move(on_message),
                                  until_answer);
  // An exchange may be kept for long after its end, its connection may not.
  if (stream_) stream_->close();
  co_return answer;
}

Task<Result<McpAnswer>> McpExchange::exchange(McpEndpoint endpoint, McpRequest request,
                                              OnMessage on_message, Deadline until_answer) {
  beast::error_code bad;
  auto ip = asio::ip::make_address(endpoint.address, bad);
  if (bad) CO_FAIL(ErrorKind::kInternal, "'{}' is not a numeric address", endpoint.address);
  if (ip.is_unspecified()) {
    ip = ip.is_v4() ? asio::ip::address(asio::ip::address_v4::loopback())
                    : asio::ip::address(asio::ip::address_v6::loopback());
  }
  http::request<http::string_body> message(http::string_to_verb(request.method), request.target,
                                           11);
  message.set(http::field::host, endpoint.host);
  message.set(http::field::authorization, "Bearer " + endpoint.token);
  message.set(http::field::connection, "close");
  message.set(http::field::accept, "application/json, text/event-stream");
  if (request.method == "POST") message.set(http::field::content_type, "application/json");
  for (const auto& [name, value] : request.headers) message.set(name, value);
  message.body() = std::move(request.body);
  message.prepare_payload();

  if (cancelled_) CO_FAIL(ErrorKind::kInterrupted, "cancelled");
  stream_ = std::make_unique<beast::tcp_stream>(co_await asio::this_coro::executor);
  if (!until_answer.is_never()) stream_->expires_at(until_answer.at());
  const asio::ip::tcp::endpoint where(ip, endpoint.port);
  const auto [refused] = co_await stream_->async_connect(where, kTuple);
  if (refused) {
    CO_FAIL(ErrorKind::kNotRunning, "the MCP endpoint cannot be reached: {}", refused.message());
  }
  const auto [unsent, sent_bytes] = co_await http::async_write(*stream_, message, kTuple);
  if (unsent) CO_FAIL("the MCP endpoint went away: {}", unsent.message());
  beast::flat_buffer buffer;
  Parser parser;
  parser.header_limit(16384);
  parser.body_limit(boost::none);
  const auto [silent, header_bytes] =
      co_await http::async_read_header(*stream_, buffer, parser, kTuple);
  if (silent) CO_FAIL("the MCP endpoint did not answer: {}", silent.message());

  McpAnswer answer;
  answer.status = static_cast<int>(parser.get().result_int());
  answer.session_id = std::string(parser.get()["Mcp-Session-Id"]);
  answer.stream = parser.get()[http::field::content_type].starts_with("text/event-stream");
  if (answer.stream) stream_->expires_never();
  EventParser events;
  std::string piece;
  while (!parser.is_done()) {
    const beast::error_code broken = co_await read_piece(*stream_, buffer, parser, piece);
    if (broken) CO_FAIL("the MCP endpoint broke its answer off: {}", broken.message());
    if (answer.stream) {
      if (!events.feed(piece, kMaxMessage, on_message)) CO_FAIL("a message is too large");
    } else if (answer.body.size() + piece.size() > kMaxMessage) {
      CO_FAIL("the answer is too large");
    } else {
      answer.body += piece;
    }
  }
  co_return answer;
}

}  // namespace agent_vm

#include "control/http_probe.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <optional>

#include "os/async.h"

namespace agent_vm {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

Error probe_error(const char* step, const beast::error_code& error) {
  if (error == beast::error::timeout) {
    return {ErrorKind::kTimeout, fmt::format("the MCP endpoint did not answer in time ({})", step)};
  }
  return {ErrorKind::kFailed,
          fmt::format("the MCP endpoint does not answer ({}: {})", step, error.message())};
}

Task<Result<HttpAnswer>> get(asio::ip::tcp::endpoint endpoint,
                             http::request<http::empty_body> request, Deadline deadline) {
  const auto begin = std::chrono::steady_clock::now();
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  if (!deadline.is_never()) stream.expires_at(deadline.at());
  const auto [connected] = co_await stream.async_connect(endpoint, kTuple);
  if (connected) co_return tl::unexpected(probe_error("connecting", connected));
  const auto [sent, sent_bytes] = co_await http::async_write(stream, request, kTuple);
  if (sent) co_return tl::unexpected(probe_error("sending", sent));
  beast::flat_buffer buffer(65536);
  http::response_parser<http::string_body> parser;
  parser.body_limit(65536);
  parser.header_limit(16384);
  const auto [received, received_bytes] = co_await http::async_read(stream, buffer, parser, kTuple);
  if (received) co_return tl::unexpected(probe_error("waiting for the answer", received));
  HttpAnswer answer;
  answer.status = static_cast<int>(parser.get().result_int());
  answer.body = parser.get().body();
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  answer.milliseconds = took.count();
  co_return answer;
}

}  // namespace

Task<Result<HttpAnswer>> http_get_async(std::string address, std::uint16_t port, std::string host,
                                        std::string target, std::string token, Deadline deadline) {
  beast::error_code error;
  auto ip = asio::ip::make_address(address, error);
  if (error) CO_FAIL(ErrorKind::kInternal, "'{}' is not a numeric address", address);
  // A listener on all addresses is reached through loopback.
  if (ip.is_unspecified()) {
    ip = ip.is_v4() ? asio::ip::address(asio::ip::address_v4::loopback())
                    : asio::ip::address(asio::ip::address_v6::loopback());
  }
  http::request<http::empty_body> request(http::verb::get, target, 11);
  request.set(http::field::host, host);
  request.set(http::field::connection, "close");
  if (!token.empty()) request.set(http::field::authorization, "Bearer " + token);
  co_return co_await get(asio::ip::tcp::endpoint(ip, port), std::move(request), deadline);
}

Result<HttpAnswer> http_get(const std::string& address, std::uint16_t port, const std::string& host,
                            const std::string& target, const std::string& token,
                            const Deadline& deadline) {
  asio::io_context io(1);
  std::optional<Result<HttpAnswer>> answer;
  start_detached(
      io, [](Task<Result<HttpAnswer>> task, std::optional<Result<HttpAnswer>>& into) -> Task<void> {
        into = co_await std::move(task);
      }(http_get_async(address, port, host, target, token, deadline), answer));
  io.run();
  return std::move(*answer);
}

}  // namespace agent_vm

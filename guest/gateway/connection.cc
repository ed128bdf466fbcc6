#include "gateway/connection.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/write.hpp>
#include <cerrno>

namespace agent_vm::gateway {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using namespace std::chrono_literals;
using boost::system::error_code;

constexpr std::size_t kMaxHeaderBytes = 16 * 1024;
// Between requests; then for a whole header.
constexpr std::chrono::seconds kIdleTimeout = 120s;
constexpr std::chrono::seconds kHeaderTimeout = 10s;
constexpr std::chrono::seconds kLingerTimeout = 1s;
constexpr std::size_t kMaxLingerBytes = 4U << 20;

void tune(asio::ip::tcp::socket& socket) {
  error_code ignored;
  socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  // A client whose machine vanished is noticed after about two minutes.
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  const int idle = 60;
  const int interval = 15;
  const int count = 4;
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

template <typename Message>
void set_headers(Message& message, const Headers& headers) {
  for (const auto& [name, value] : headers) message.set(name, value);
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, const Limits& limits)
    : stream_(std::move(socket)),
      max_body_bytes_(limits.max_body_bytes),
      client_timeout_(limits.client_timeout) {
  tune(stream_.socket());
}

asio::awaitable<bool> Connection::read_header() {
  parser_ = std::make_unique<Parser>();
  parser_->header_limit(kMaxHeaderBytes);
  parser_->body_limit(max_body_bytes_);
  extra_headers_.clear();
  body_read_ = false;
  error_code error;
  if (buffer_.size() == 0) {
    // Waiting for a next request is not being slow with one.
    stream_.expires_after(first_ ? kHeaderTimeout : kIdleTimeout);
    const std::size_t got = co_await stream_.async_read_some(
        buffer_.prepare(4096), asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return false;
    buffer_.commit(got);
  }
  first_ = false;
  stream_.expires_after(kHeaderTimeout);
  co_await bhttp::async_read_header(stream_, buffer_, *parser_,
                                    asio::redirect_error(asio::use_awaitable, error));
  if (error) {
    co_await answer_failed_read(error);
    co_return false;
  }
  keep_alive_ = parser_->get().keep_alive();
  // Without a body there is nothing left to read before the next request.
  if (parser_->is_done()) body_read_ = true;
  co_return true;
}

asio::awaitable<std::optional<std::string>> Connection::read_body() {
  error_code error;
  if (!parser_->is_done()) {
    stream_.expires_after(client_timeout_);
    if (header("expect").value_or("") == "100-continue") {
      bhttp::response<bhttp::empty_body> proceed(bhttp::status::continue_, 11);
      co_await bhttp::async_write(stream_, proceed,
                                  asio::redirect_error(asio::use_awaitable, error));
      if (error) co_return std::nullopt;
    }
    co_await bhttp::async_read(stream_, buffer_, *parser_,
                               asio::redirect_error(asio::use_awaitable, error));
    if (error) {
      co_await answer_failed_read(error);
      co_return std::nullopt;
    }
  }
  body_read_ = true;
  co_return std::move(parser_->get().body());
}

asio::awaitable<void> Connection::answer_failed_read(error_code error) {
  Response response;
  if (error == bhttp::error::body_limit) {
    response.status = 413;
    response.body = "the body is too large\n";
  } else if (error == bhttp::error::header_limit || error == bhttp::error::buffer_overflow) {
    response.status = 431;
    response.body = "the header is too large\n";
  } else if (error.category() == bhttp::make_error_code(bhttp::error::bad_method).category() &&
             error != bhttp::error::end_of_stream && error != bhttp::error::partial_message) {
    response.status = 400;
    response.body = "this is not an HTTP request\n";
  } else {
    keep_alive_ = false;  // the client went away, or was too slow: Beast has closed the socket
    co_return;
  }
  response.content_type = "text/plain";
  body_read_ = false;
  co_await respond(std::move(response));
}

std::string Connection::method() const {
  return std::string(parser_->get().method_string());
}
std::string Connection::target() const {
  return std::string(parser_->get().target());
}

std::optional<std::string> Connection::header(std::string_view name) const {
  const auto& request = parser_->get();
  const auto found = request.find(beast::string_view(name.data(), name.size()));
  if (found == request.end()) return std::nullopt;
  return std::string(found->value());
}

std::map<std::string, std::string> Connection::headers_below(std::string_view prefix) const {
  std::map<std::string, std::string> found;
  for (const auto& field : parser_->get()) {
    std::string name(field.name_string());
    for (char& c : name) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    if (name.starts_with(prefix)) found[name.substr(prefix.size())] = std::string(field.value());
  }
  return found;
}

bool Connection::header_repeated(std::string_view name) const {
  return parser_->get().count(beast::string_view(name.data(), name.size())) > 1;
}

void Connection::add_header(std::string name, std::string value) {
  extra_headers_.emplace_back(std::move(name), std::move(value));
}

asio::awaitable<bool> Connection::respond(Response response) {
  if (!body_read_) keep_alive_ = false;  // what follows on the wire is not a request
  bhttp::response<bhttp::string_body> message(static_cast<bhttp::status>(response.status), 11);
  if (!response.body.empty()) message.set(bhttp::field::content_type, response.content_type);
  message.set(bhttp::field::cache_control, "no-store");
  set_headers(message, response.headers);
  set_headers(message, extra_headers_);
  message.keep_alive(keep_alive_);
  const bool head = parser_ && parser_->get().method() == bhttp::verb::head;
  const std::size_t length = response.body.size();
  if (!head) message.body() = std::move(response.body);
  message.prepare_payload();
  if (head || length == 0) {
    if (response.status != 204) message.content_length(length);
  }
  stream_.expires_after(client_timeout_);
  error_code error;
  co_await bhttp::async_write(stream_, message, asio::redirect_error(asio::use_awaitable, error));
  if (error) keep_alive_ = false;
  co_return !error;
}

asio::awaitable<bool> Connection::begin_events(Headers headers) {
  keep_alive_ = false;
  bhttp::response<bhttp::empty_body> message(bhttp::status::ok, 11);
  message.set(bhttp::field::content_type, "text/event-stream");
  message.set(bhttp::field::cache_control, "no-store, no-transform");
  message.set("X-Accel-Buffering", "no");
  set_headers(message, headers);
  set_headers(message, extra_headers_);
  message.keep_alive(false);
  message.chunked(true);
  bhttp::response_serializer<bhttp::empty_body> serializer(message);
  stream_.expires_after(client_timeout_);
  error_code error;
  co_await bhttp::async_write_header(stream_, serializer,
                                     asio::redirect_error(asio::use_awaitable, error));
  co_return !error;
}

asio::awaitable<bool> Connection::send_event(std::string_view prefix, std::string_view message) {
  const std::array<asio::const_buffer, 3> parts = {asio::buffer(prefix.data(), prefix.size()),
                                                   asio::buffer(message.data(), message.size()),
                                                   asio::buffer("\n\n", 2)};
  stream_.expires_after(client_timeout_);
  error_code error;
  co_await asio::async_write(stream_, bhttp::make_chunk(parts),
                             asio::redirect_error(asio::use_awaitable, error));
  co_return !error;
}

asio::awaitable<void> Connection::end_events() {
  stream_.expires_after(client_timeout_);
  error_code ignored;
  co_await asio::async_write(stream_, bhttp::make_chunk_last(),
                             asio::redirect_error(asio::use_awaitable, ignored));
}

Connection::PeerWatch Connection::watch_peer(Notifier& notifier) {
  auto active = std::make_shared<bool>(true);
  stream_.socket().async_wait(asio::ip::tcp::socket::wait_read, [this, active,
                                                                 &notifier](error_code error) {
    if (error || !*active) return;
    char byte = 0;
    const ssize_t got = ::recv(stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (got > 0 || (got < 0 && errno == EAGAIN)) return;  // a pipelined request: later
    peer_closed_ = true;
    notifier.notify();
  });
  return PeerWatch(std::move(active));
}

asio::awaitable<void> Connection::finish() {
  error_code error;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  std::array<char, 16384> discarded;
  std::size_t total = 0;
  stream_.expires_after(kLingerTimeout);
  while (!error && total < kMaxLingerBytes) {
    total += co_await stream_.async_read_some(asio::buffer(discarded),
                                              asio::redirect_error(asio::use_awaitable, error));
  }
  stream_.close();
}

}  // namespace agent_vm::gateway

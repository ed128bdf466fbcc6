// One client's TCP connection: requests in, responses and event streams out, each under a deadline.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gateway/config.h"
#include "gateway/notifier.h"

namespace agent_vm::gateway {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Response {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  Headers headers;
};

class Connection {
 public:
  Connection(boost::asio::ip::tcp::socket socket, const Limits& limits);

  // The next request's header. False: the connection is over (a request that is no HTTP, too large
  // or too slow was answered before that).
  boost::asio::awaitable<bool> read_header();
  // Its body; nothing when it is too large or too slow, which was then answered.
  boost::asio::awaitable<std::optional<std::string>> read_body();

  std::string method() const;
  std::string target() const;
  // Nothing when the header is absent.
  std::optional<std::string> header(std::string_view name) const;
  // Those whose name begins so (in any case), by the lower-cased rest of it.
  std::map<std::string, std::string> headers_below(std::string_view prefix) const;
  bool header_repeated(std::string_view name) const;

  // Added to every response to this request.
  void add_header(std::string name, std::string value);

  // False when the client is gone. After it the next header can be read, unless the body was not.
  boost::asio::awaitable<bool> respond(Response response);
  bool keep_alive() const { return keep_alive_; }
  void close_after_response() { keep_alive_ = false; }

  // An event stream (chunked, and the last thing on its connection).
  boost::asio::awaitable<bool> begin_events(Headers headers);
  // `prefix` and `message` are sent as they are, then an empty line.
  boost::asio::awaitable<bool> send_event(std::string_view prefix, std::string_view message);
  boost::asio::awaitable<void> end_events();

  // Notices, while nothing is read, that the client closes its end; for as long as the returned
  // object lives, which the notifier must outlive.
  class PeerWatch {
   public:
    PeerWatch() = default;  // of nobody
    explicit PeerWatch(std::shared_ptr<bool> active) : active_(std::move(active)) {}
    ~PeerWatch() {
      if (active_) *active_ = false;
    }
    PeerWatch(const PeerWatch&) = delete;
    PeerWatch& operator=(const PeerWatch&) = delete;

   private:
    std::shared_ptr<bool> active_;
  };
  [[nodiscard]] PeerWatch watch_peer(Notifier& notifier);
  bool peer_closed() const { return peer_closed_; }

  // Ends the connection so that the client can still read the last response: bytes of its own that
  // we did not read would otherwise turn the end into a reset.
  boost::asio::awaitable<void> finish();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  boost::asio::awaitable<void> answer_failed_read(boost::system::error_code error);

  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  std::size_t max_body_bytes_;
  std::chrono::seconds client_timeout_;
  std::unique_ptr<Parser> parser_;
  Headers extra_headers_;
  bool keep_alive_ = true;
  bool body_read_ = false;
  bool first_ = true;
  bool peer_closed_ = false;
};

}  // namespace agent_vm::gateway

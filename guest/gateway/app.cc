#include "gateway/app.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/log.h"
#include "gateway/endpoint.h"
#include "gateway/systemd.h"

namespace agent_vm::gateway {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using namespace std::chrono_literals;

// The whole of a stop must fit into 5 s: first requests in flight may finish, then the servers get
// a shorter stop policy than otherwise.
constexpr auto kDrainRequests = 2s;
constexpr auto kTellClients = 300ms;
constexpr auto kDrainServers = 2s;
constexpr process::StopPolicy kStopServers{500ms, 1000ms};
constexpr auto kSweepEvery = 10s;

class App {
 public:
  App(Config config, std::string config_file, std::string token, workspace::Root root,
      std::string state_key)
      : config_(std::move(config)),
        config_file_(std::move(config_file)),
        workspace_(std::make_shared<workspace::Service>(io_.get_executor(), std::move(root))),
        registry_(io_.get_executor(), config_, workspace_, std::move(state_key)),
        endpoint_(config_, registry_, std::move(token)),
        acceptor_(io_),
        signals_(io_, SIGTERM, SIGINT, SIGHUP) {}

  Status listen() {
    error_code error;
    const auto address = asio::ip::make_address(config_.address, error);
    if (error) {
      return fail(ErrorKind::kInvalidInput, "\"address\" is no IP address: {}", config_.address);
    }
    const tcp::endpoint endpoint(address, config_.port);
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      return fail("cannot listen on {} port {}: {}", config_.address, config_.port,
                  error.message());
    }
    port_ = acceptor_.local_endpoint(error).port();
    return registry_.restore();
  }

  int serve() {
    asio::co_spawn(io_, accept_loop(), asio::detached);
    asio::co_spawn(io_, signal_loop(), asio::detached);
    asio::co_spawn(io_, sweep_loop(), asio::detached);
    if (manager_.watchdog()) asio::co_spawn(io_, watchdog_loop(), asio::detached);
    manager_.notify("READY=1\nSTATUS=Serving");
    // Tests and the curious read the port from here when it was chosen by the kernel.
    log::info("listening on {} port {}", config_.address, port_);
    io_.run();
    return 0;
  }

 private:
  asio::awaitable<void> accept_loop() {
    for (;;) {
      error_code error;
      tcp::socket socket =
          co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, error));
      if (!acceptor_.is_open()) co_return;
      if (error) {
        // Out of descriptors, most likely: give those in use time to be closed.
        log::warn("cannot accept a connection: {}", error.message());
        asio::steady_timer pause(io_, 100ms);
        co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
        continue;
      }
      asio::co_spawn(io_, endpoint_.serve(std::move(socket)), [](std::exception_ptr exception) {
        if (!exception) return;
        try {
          std::rethrow_exception(exception);
        } catch (const std::exception& error_thrown) {
          log::error("a connection failed: {}", error_thrown.what());
        }
      });
    }
  }

  asio::awaitable<void> signal_loop() {
    for (;;) {
      error_code error;
      const int signal =
          co_await signals_.async_wait(asio::redirect_error(asio::use_awaitable, error));
      if (error) co_return;
      if (signal != SIGHUP) break;
      reload();
    }
    co_await drain();
  }

  // What cannot be used changes nothing: a typo must not lock the owner out, nor end a session.
  void reload() {
    if (auto config = load_config(config_file_)) {
      config_.servers = std::move(config->servers);
      config_.default_server = std::move(config->default_server);
      config_.origins = std::move(config->origins);
      config_.hosts = std::move(config->hosts);
      registry_.servers_changed();
      log::info("the configuration was read again");
    } else {
      log::error("the configuration was not changed: {}", config.error().message());
    }
    auto token = load_token(config_.token_file);
    if (token) {
      endpoint_.set_token(std::move(*token));
      log::info("the token was read again");
    } else {
      log::error("the token was not changed: {}", token.error().message());
    }
  }

  asio::awaitable<void> drain() {
    manager_.notify("STOPPING=1\nSTATUS=Draining");
    log::info("stopping");
    error_code ignored;
    acceptor_.close(ignored);
    endpoint_.drain();
    const auto deadline = Clock::now() + kDrainRequests;
    while (endpoint_.busy() > 0 && Clock::now() < deadline) {
      co_await endpoint_.changed().wait(deadline);
    }
    registry_.close_all(kStopServers);
    workspace_->stop();
    // Those whose request did not finish are told so.
    const auto told = Clock::now() + kTellClients;
    while (endpoint_.busy() > 0 && Clock::now() < told) co_await endpoint_.changed().wait(told);
    // Servers that went at once need no waiting; the rest is killed by its policy, and by the
    // control group after that.
    asio::steady_timer wait(io_);
    const auto end = Clock::now() + kDrainServers;
    while (Clock::now() < end && has_children()) {
      wait.expires_after(20ms);
      co_await wait.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
    io_.stop();
  }

  static bool has_children() {
    siginfo_t info{};
    return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
  }

  asio::awaitable<void> sweep_loop() {
    asio::steady_timer timer(io_);
    for (;;) {
      error_code error;
      timer.expires_after(kSweepEvery);
      co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
      if (error) co_return;
      registry_.sweep();
    }
  }

  // On the event loop itself, so that a loop that hangs is noticed.
  asio::awaitable<void> watchdog_loop() {
    asio::steady_timer timer(io_);
    for (;;) {
      error_code error;
      timer.expires_after(*manager_.watchdog() / 2);
      co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
      if (error) co_return;
      manager_.notify("WATCHDOG=1");
    }
  }

  Config config_;
  std::string config_file_;
  ServiceManager manager_ = ServiceManager::from_environment();  // before the first thread
  asio::io_context io_;
  std::shared_ptr<workspace::Service> workspace_;
  Registry registry_;
  Endpoint endpoint_;
  tcp::acceptor acceptor_;
  asio::signal_set signals_;
  std::uint16_t port_ = 0;
};

int report(const Error& error) {
  log::error("{}", error.message());
  return 1;
}

}  // namespace

int run(Config config, const std::string& config_file) {
  ::signal(SIGPIPE, SIG_IGN);  // a peer that went away is an error code, not our end
  auto token = load_token(config.token_file);
  if (!token) return report(token.error());
  auto root = workspace::Root::open(config.workspace_root);
  if (!root) return report(root.error());
  auto state_key = random_id();  // of 128 bits; what it signs lives no longer than this process
  if (!state_key) return report(state_key.error());
  App app(std::move(config), config_file, std::move(*token), std::move(*root),
          std::move(*state_key));
  if (const Status listening = app.listen(); !listening) return report(listening.error());
  const int status = app.serve();
  // A worker may still be inside a file system call; the process does not wait for it.
  ::_exit(status);
}

}  // namespace agent_vm::gateway

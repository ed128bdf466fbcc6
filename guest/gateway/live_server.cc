#include "gateway/live_server.h"

#include <boost/asio/post.hpp>

#include "base/log.h"
#include "base/text.h"

namespace agent_vm::gateway {
namespace {

// Between the two a server's output is neither paused nor resumed, so that it does not flap.
constexpr std::size_t kPauseAbove = 16U << 20;
constexpr std::size_t kResumeBelow = 4U << 20;
constexpr std::size_t kMaxQueuedToServer = 8U << 20;

}  // namespace

LiveServer::LiveServer(boost::asio::any_io_executor executor, std::shared_ptr<ServerEntry> server,
                       const Limits& limits)
    : executor_(executor),
      server_(std::move(server)),
      limits_(limits),
      restart_timer_(executor),
      handshake_timer_(executor) {}

LiveServer::~LiveServer() {
  if (backend_) backend_->stop({});
}

void LiveServer::start() {
  restart_timer_.cancel();
  if (backend_ || closed_) return;
  backend_ = server_->make_backend();
  adapter_ = mcp::StatelessChild();
  started_ = Clock::now();
  const std::weak_ptr<LiveServer> weak = weak_from_this();
  Backend::Events events;
  events.on_line = [weak](std::string_view line) {
    if (const auto alive = weak.lock()) alive->on_output(line);
  };
  events.on_exit = [weak](const std::string& reason) {
    if (const auto alive = weak.lock()) alive->lost(reason);
  };
  const Status status = backend_->start(std::move(events));
  if (!status) {
    lost(status.error().message());
    return;
  }
  log::info("server {}: started for {}, pid {}", server_->name, label(), backend_->pid());
  send_all(side().server_started());
  watch_handshake();
  changed_.notify();
}

// A server that does not come out of its handshake is as good as dead.
void LiveServer::watch_handshake() {
  handshake_timer_.expires_after(limits_.start_timeout);
  handshake_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto alive = weak.lock();
    if (error || !alive || !alive->backend_) return;
    if (alive->side().server_ready() && alive->side().established()) return;
    alive->lost("did not answer initialize in time and was stopped");
  });
}

void LiveServer::on_output(std::string_view line) {
  if (adapter_.transparent()) {
    on_line(line, {});
    return;
  }
  const mcp::StatelessChild::Lines lines = adapter_.from_server(line);
  for (const std::string& reply : lines.to_server) backend_->send(reply);
  for (const auto& [text, about] : lines.to_client) {
    if (backend_) on_line(text, about);
  }
}

void LiveServer::on_line(std::string_view line, std::string_view about) {
  mcp::ServerSide::FromServer effects = side().server_line(line, about);
  if (effects.junk) {
    ++server_->state.junk_lines;
    log::debug("server {}: dropped a line that is no message: {}", server_->name,
               escape_line(line.substr(0, 200)));
  }
  if (!effects.handshake_failure.empty()) {
    lost("could not be initialised: " + effects.handshake_failure);
    return;
  }
  send_all(std::move(effects.to_server));
  if (effects.became_ready || effects.established) handshake_timer_.cancel();
  on_effects(effects);
  if (!paused_ && side().pending_bytes() > kPauseAbove) {
    paused_ = true;
    backend_->pause(true);
  }
  if (!effects.touched.empty() || effects.became_ready) changed_.notify();
}

void LiveServer::delivered() {
  if (!paused_ || side().pending_bytes() > kResumeBelow) return;
  paused_ = false;
  if (backend_) backend_->pause(false);
}

void LiveServer::lost(const std::string& reason) {
  log::warn("server {}: {}", server_->name, reason);
  const auto now = Clock::now();
  server_->state.failed(now, now - started_, reason);
  drop_backend();
  std::string text =
      fmt::format("the server {} {}; the request was not repeated", server_->name, reason);
  side().server_lost(text);
  // Without a finished handshake there is nothing to restore; the client starts anew.
  if (side().wants_server() && !closed_ && !server_->state.is_failed()) {
    restart_timer_.expires_at(server_->state.next_start());
    restart_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
      const auto alive = weak.lock();
      if (!error && alive) alive->start();
    });
  }
  changed_.notify();
}

// This may run inside one of the backend's own events, so its destruction waits for the loop.
void LiveServer::drop_backend(const process::StopPolicy& policy) {
  handshake_timer_.cancel();
  paused_ = false;
  if (!backend_) return;
  backend_->stop(policy);
  boost::asio::post(executor_, [backend = std::shared_ptr<Backend>(std::move(backend_))] {});
}

boost::asio::awaitable<Status> LiveServer::ready(Clock::time_point deadline) {
  const auto self = shared_from_this();
  bool tried = false;
  for (;;) {
    if (closed_) co_return fail(ErrorKind::kNotFound, "the session has ended");
    if (backend_ && side().server_ready()) co_return Status();
    const auto now = Clock::now();
    const ServerState& state = server_->state;
    if (!backend_) {
      if (tried && !side().established()) {
        co_return fail(ErrorKind::kNotRunning, "the server {} cannot be started: {}", server_->name,
                       state.last_failure);
      }
      if (now >= state.next_start()) {
        tried = true;
        start();
        continue;
      }
      if (state.is_failed()) {
        co_return fail(ErrorKind::kNotRunning, "the server {} keeps failing; the last time: {}",
                       server_->name, state.last_failure);
      }
    }
    if (now >= deadline) {
      co_return fail(ErrorKind::kTimeout, "the server {} is still starting", server_->name);
    }
    const auto wake = backend_ ? deadline : std::min(deadline, state.next_start());
    co_await changed_.wait(wake);
  }
}

boost::asio::awaitable<Status> LiveServer::writable(Clock::time_point deadline) {
  const auto self = shared_from_this();
  while (backend_ && backend_->queued_bytes() > kMaxQueuedToServer) {
    if (Clock::now() >= deadline) {
      co_return fail(ErrorKind::kTimeout, "the server {} does not read its input", server_->name);
    }
    backend_->when_drained_below(kMaxQueuedToServer, [weak = weak_from_this()] {
      if (const auto alive = weak.lock()) alive->changed_.notify();
    });
    co_await changed_.wait(deadline);
  }
  if (!backend_) {
    co_return fail(ErrorKind::kNotRunning, "the server {} went away", server_->name);
  }
  co_return Status();
}

void LiveServer::send_all(std::vector<std::string> lines) {
  for (std::string& line : lines) {
    if (!backend_) return;
    if (adapter_.transparent()) {
      backend_->send(std::move(line));
      continue;
    }
    mcp::StatelessChild::Lines translated = adapter_.from_client(std::move(line));
    for (std::string& out : translated.to_server) {
      mcp::to_one_line(out);
      backend_->send(std::move(out));
    }
    if (translated.to_client.empty()) continue;
    // Not from in here: the core is in the middle of sending.
    boost::asio::post(executor_,
                      [weak = weak_from_this(), answers = std::move(translated.to_client)] {
                        const auto alive = weak.lock();
                        for (const auto& [text, about] : answers) {
                          if (alive && alive->backend_) alive->on_line(text, about);
                        }
                      });
  }
}

void LiveServer::close(const process::StopPolicy& policy, const std::string& reason) {
  if (closed_) return;
  closed_ = true;
  restart_timer_.cancel();
  drop_backend(policy);
  side().server_lost(reason);
  changed_.notify();
}

void LiveServer::renew(const std::string& reason) {
  if (!backend_) return;
  drop_backend();
  side().server_lost(
      fmt::format("the server {} {}; the request was not repeated", server_->name, reason));
  if (side().wants_server()) start();
  changed_.notify();
}

void LiveServer::park() {
  if (!backend_ || !side().established()) return;
  log::info("server {}: stopped, because {} is idle", server_->name, label());
  restart_timer_.cancel();
  drop_backend();
  side().server_lost("was stopped while idle");
}

}  // namespace agent_vm::gateway

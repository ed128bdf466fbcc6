#include "gateway/live_session.h"

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

LiveSession::LiveSession(boost::asio::any_io_executor executor, ServerEntry& server,
                         mcp::Session core, const Limits& limits,
                         std::function<void(const mcp::SessionRecord&)> on_established)
    : executor_(executor),
      server_(server),
      core_(std::move(core)),
      limits_(limits),
      on_established_(std::move(on_established)),
      restart_timer_(executor),
      handshake_timer_(executor) {}

LiveSession::~LiveSession() {
  if (backend_) backend_->stop({});
}

void LiveSession::start() {
  restart_timer_.cancel();
  if (backend_ || closed_) return;
  backend_ = server_.make_backend();
  started_ = Clock::now();
  const std::weak_ptr<LiveSession> weak = weak_from_this();
  const Status status = backend_->start({[weak](std::string_view line) {
                                           if (const auto alive = weak.lock()) alive->on_line(line);
                                         },
                                         [weak](const std::string& reason) {
                                           if (const auto alive = weak.lock())
                                             alive->on_exit(reason);
                                         }});
  if (!status) {
    lost(status.error().message());
    return;
  }
  log::info("server {}: started for session {}..., pid {}", server_.name, id().substr(0, 6),
            backend_->pid());
  for (std::string& line : core_.server_started()) backend_->send(std::move(line));
  watch_handshake();
  changed_.notify();
}

// A server that does not come out of its handshake is as good as dead.
void LiveSession::watch_handshake() {
  handshake_timer_.expires_after(limits_.start_timeout);
  handshake_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto alive = weak.lock();
    if (error || !alive || !alive->backend_) return;
    if (alive->core_.server_ready() && alive->core_.established()) return;
    alive->lost("did not answer initialize in time and was stopped");
  });
}

void LiveSession::on_line(std::string_view line) {
  mcp::Session::FromServer effects = core_.server_line(line);
  if (effects.junk) {
    ++server_.state.junk_lines;
    log::debug("server {}: dropped a line that is no message: {}", server_.name,
               escape_line(line.substr(0, 200)));
  }
  if (!effects.replay_failure.empty()) {
    lost("could not take up the session again: " + effects.replay_failure);
    return;
  }
  for (std::string& reply : effects.to_server) backend_->send(std::move(reply));
  if (effects.became_ready || effects.established) handshake_timer_.cancel();
  if (effects.established && on_established_) on_established_(core_.record());
  if (!paused_ && core_.pending_bytes() > kPauseAbove) {
    paused_ = true;
    backend_->pause(true);
  }
  if (!effects.touched.empty() || effects.became_ready) changed_.notify();
}

void LiveSession::delivered() {
  if (!paused_ || core_.pending_bytes() > kResumeBelow) return;
  paused_ = false;
  if (backend_) backend_->pause(false);
}

void LiveSession::on_exit(const std::string& reason) {
  lost(reason);
}

void LiveSession::lost(const std::string& reason) {
  log::warn("server {}: {}", server_.name, reason);
  const auto now = Clock::now();
  server_.state.failed(now, now - started_, reason);
  drop_backend();
  std::string text =
      fmt::format("the server {} {}; the request was not repeated", server_.name, reason);
  core_.server_lost(text);
  // Without a finished handshake there is nothing to restore; the client starts anew.
  if (core_.established() && !closed_ && !server_.state.is_failed()) {
    restart_timer_.expires_at(server_.state.next_start());
    restart_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
      const auto alive = weak.lock();
      if (!error && alive) alive->start();
    });
  }
  changed_.notify();
}

// This may run inside one of the backend's own events, so its destruction waits for the loop.
void LiveSession::drop_backend(const process::StopPolicy& policy) {
  handshake_timer_.cancel();
  paused_ = false;
  if (!backend_) return;
  backend_->stop(policy);
  boost::asio::post(executor_, [backend = std::shared_ptr<Backend>(std::move(backend_))] {});
}

boost::asio::awaitable<Status> LiveSession::ready(Clock::time_point deadline) {
  const auto self = shared_from_this();
  bool tried = false;
  for (;;) {
    if (closed_) co_return fail(ErrorKind::kNotFound, "the session has ended");
    if (backend_ && core_.server_ready()) co_return Status();
    const auto now = Clock::now();
    const ServerState& state = server_.state;
    if (!backend_) {
      if (tried && !core_.established()) {
        co_return fail(ErrorKind::kNotRunning, "the server {} cannot be started: {}", server_.name,
                       state.last_failure);
      }
      if (now >= state.next_start()) {
        tried = true;
        start();
        continue;
      }
      if (state.is_failed()) {
        co_return fail(ErrorKind::kNotRunning, "the server {} keeps failing; the last time: {}",
                       server_.name, state.last_failure);
      }
    }
    if (now >= deadline) {
      co_return fail(ErrorKind::kTimeout, "the server {} is still starting", server_.name);
    }
    const auto wake = backend_ ? deadline : std::min(deadline, state.next_start());
    co_await changed_.wait(wake);
  }
}

boost::asio::awaitable<Status> LiveSession::writable(Clock::time_point deadline) {
  const auto self = shared_from_this();
  while (backend_ && backend_->queued_bytes() > kMaxQueuedToServer) {
    if (Clock::now() >= deadline) {
      co_return fail(ErrorKind::kTimeout, "the server {} does not read its input", server_.name);
    }
    backend_->when_drained_below(kMaxQueuedToServer, [weak = weak_from_this()] {
      if (const auto alive = weak.lock()) alive->changed_.notify();
    });
    co_await changed_.wait(deadline);
  }
  if (!backend_) {
    co_return fail(ErrorKind::kNotRunning, "the server {} went away", server_.name);
  }
  co_return Status();
}

tl::expected<mcp::Session::Accepted, mcp::Refusal> LiveSession::post(std::string_view body) {
  touch();
  const bool had_initialized = !core_.record().initialized.empty();
  auto accepted = core_.post(body);
  if (!accepted) return accepted;
  for (std::string& line : accepted->to_server) {
    if (backend_) backend_->send(std::move(line));
  }
  if (!had_initialized && !core_.record().initialized.empty() && core_.established() &&
      on_established_) {
    on_established_(core_.record());
  }
  if (!accepted->touched.empty()) changed_.notify();
  return accepted;
}

void LiveSession::close(const process::StopPolicy& policy) {
  if (closed_) return;
  closed_ = true;
  restart_timer_.cancel();
  drop_backend(policy);
  core_.server_lost("the session was ended");
  changed_.notify();
}

void LiveSession::park() {
  if (!backend_ || !core_.established()) return;
  log::info("server {}: stopped for the idle session {}...", server_.name, id().substr(0, 6));
  restart_timer_.cancel();
  drop_backend();
  core_.server_lost("was stopped while idle");
}

}  // namespace agent_vm::gateway

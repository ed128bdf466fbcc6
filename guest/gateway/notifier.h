// Wakes coroutines that wait for a condition on the same, single-threaded event loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <functional>
#include <map>

namespace agent_vm::gateway {

using Clock = std::chrono::steady_clock;

class Notifier {
 public:
  Notifier() = default;
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  void notify() {
    for (const auto& [timer, ready] : waiting_) {
      if (!ready || ready()) timer->cancel();
    }
  }

  // Returns at the next notify(), of those at which `ready` is true, or at the deadline. Callers
  // look at their condition in a loop; nothing can be missed between the look and the wait, because
  // nothing else runs. `ready` spares many waiters that one of them is woken in vain for another.
  boost::asio::awaitable<void> wait(Clock::time_point deadline, std::function<bool()> ready = {}) {
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, deadline);
    const Registration registration(waiting_, &timer, std::move(ready));
    boost::system::error_code cancelled;
    co_await timer.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, cancelled));
  }

 private:
  using Waiting = std::map<boost::asio::steady_timer*, std::function<bool()>>;
  struct Registration {
    Registration(Waiting& all, boost::asio::steady_timer* timer, std::function<bool()> ready)
        : waiting(all), entry(timer) {
      waiting.emplace(entry, std::move(ready));
    }
    ~Registration() { waiting.erase(entry); }
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;
    Waiting& waiting;
    boost::asio::steady_timer* entry;
  };
  Waiting waiting_;
};

}  // namespace agent_vm::gateway

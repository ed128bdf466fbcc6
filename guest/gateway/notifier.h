// Wakes coroutines that wait for a condition on the same, single-threaded event loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <set>

namespace agent_vm::gateway {

using Clock = std::chrono::steady_clock;

class Notifier {
 public:
  Notifier() = default;
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  void notify() {
    for (boost::asio::steady_timer* timer : waiting_) timer->cancel();
  }

  // Returns at the next notify(), or at the deadline. Callers look at their condition in a loop;
  // nothing can be missed between the look and the wait, because nothing else runs.
  boost::asio::awaitable<void> wait(Clock::time_point deadline) {
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, deadline);
    const Registration registration(waiting_, &timer);
    boost::system::error_code cancelled;
    co_await timer.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, cancelled));
  }

 private:
  struct Registration {
    Registration(std::set<boost::asio::steady_timer*>& set, boost::asio::steady_timer* timer)
        : waiting(set), entry(timer) {
      waiting.insert(entry);
    }
    ~Registration() { waiting.erase(entry); }
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;
    std::set<boost::asio::steady_timer*>& waiting;
    boost::asio::steady_timer* entry;
  };
  std::set<boost::asio::steady_timer*> waiting_;
};

}  // namespace agent_vm::gateway

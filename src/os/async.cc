#include "os/async.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>

namespace agent_vm {

void Event::set() {
  set_ = true;
  for (auto* waiter : waiters_) waiter->cancel();
  waiters_.clear();
}

Task<bool> Event::wait(Deadline deadline) {
  if (set_) co_return true;
  asio::steady_timer timer(co_await asio::this_coro::executor);
  timer.expires_at(deadline.is_never() ? asio::steady_timer::time_point::max() : deadline.at());
  waiters_.push_back(&timer);
  co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  std::erase(waiters_, &timer);
  co_return set_;
}

Task<void> sleep_for(std::chrono::milliseconds duration) {
  asio::steady_timer timer(co_await asio::this_coro::executor, duration);
  co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
}

void start_detached(asio::io_context& io, Task<void> task) {
  asio::co_spawn(io, std::move(task), [](const std::exception_ptr& exception) {
    if (exception) std::rethrow_exception(exception);
  });
}

}  // namespace agent_vm

// The few words that our coroutines on Boost.Asio are written in. One io_context per process, run
// by one thread: no locks, and nothing changes between two co_awaits.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <vector>

#include "base/deadline.h"
#include "base/result.h"

namespace agent_vm {

namespace asio = boost::asio;

template <typename T>
using Task = asio::awaitable<T>;

// Something that happens once; any number of coroutines can wait for it.
class Event {
 public:
  void set();
  bool is_set() const { return set_; }
  // True when it happened, false when the deadline passed first.
  Task<bool> wait(Deadline deadline);

 private:
  bool set_ = false;
  std::vector<asio::steady_timer*> waiters_;
};

Task<void> sleep_for(std::chrono::milliseconds duration);

// Starts a coroutine that nobody waits for. An exception in it is a bug and ends the process.
void start_detached(asio::io_context& io, Task<void> task);

}  // namespace agent_vm

// CO_TRY(auto value, co_await something()); and CO_CHECK(co_await something()): what TRY is to
// ordinary functions. (GCC does not take co_await inside statement expressions.)
#define CO_TRY(declaration, ...) \
  AGENT_VM_CO_TRY_AS(AGENT_VM_UNIQUE(co_try_result_), declaration, __VA_ARGS__)
#define AGENT_VM_CO_TRY_AS(result, declaration, ...)                \
  auto result = (__VA_ARGS__);                                      \
  if (!result) {                                                    \
    result.error().passed_through(std::source_location::current()); \
    co_return tl::unexpected<::agent_vm::Error>(result.error());    \
  }                                                                 \
  declaration = std::move(*result)

#define CO_CHECK(...) AGENT_VM_CO_CHECK_AS(AGENT_VM_UNIQUE(co_try_result_), __VA_ARGS__)
#define AGENT_VM_CO_CHECK_AS(result, ...)                             \
  do {                                                                \
    auto result = (__VA_ARGS__);                                      \
    if (!result) {                                                    \
      result.error().passed_through(std::source_location::current()); \
      co_return tl::unexpected<::agent_vm::Error>(result.error());    \
    }                                                                 \
  } while (false)

// CO_FAIL(kind, "cannot {}", ...); is `co_return fail(...)`, which GCC 12 miscompiles: temporaries
// made by consteval constructors, as format strings are, turn to garbage in a co_return or co_await
// expression. The same goes for braced lists there. Name such values on a line of their own.
#define CO_FAIL(...)                  \
  do {                                \
    auto failure = fail(__VA_ARGS__); \
    co_return failure;                \
  } while (false)

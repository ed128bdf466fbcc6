// The service manager's notification protocol, without its library: one datagram per message.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.h"

namespace agent_vm::gateway {

class ServiceManager {
 public:
  // Reads NOTIFY_SOCKET and WATCHDOG_USEC, and removes both from the environment.
  static ServiceManager from_environment();

  // "READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=..."; does nothing without a service manager.
  void notify(std::string_view message) const;
  // How often the watchdog wants to hear from us at least; nothing: never.
  std::optional<std::chrono::microseconds> watchdog() const { return watchdog_; }

 private:
  Fd socket_;
  std::string address_;
  std::optional<std::chrono::microseconds> watchdog_;
};

}  // namespace agent_vm::gateway

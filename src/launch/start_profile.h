// Where the time of one start went, on the host and in the guest.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace agent_vm {

struct StartSpan {
  std::string where;  // "host" or "guest"
  std::string name;
  double begin_ms = 0;  // since the command began
  double end_ms = 0;
};

struct StartProfile {
  using Clock = std::chrono::steady_clock;

  Clock::time_point begin = Clock::now();
  Clock::time_point end = begin;
  std::optional<Clock::time_point> login_began;
  bool booted = false;  // the guest was booted, not resumed
  std::vector<StartSpan>
      spans;  // in the order of their beginnings, but for the login, which is last

  // The phases of a start's result (docs/control-protocol.md). The guest's clock says how long a
  // step of its identity took, not when: the steps are laid so that the last ends with the phase.
  void take(const nlohmann::json& result);
  // The login, and the whole.
  void finish();
  // What a booted guest says about its boot: {"kernel_ms", "userspace_ms", "units": [{"name",
  // "ms"}]}.
  void take_boot(const nlohmann::json& boot);

  double total_ms() const;
};

// {"total_ms", "booted", "spans": [{"where", "name", "begin_ms", "end_ms"}]}
nlohmann::ordered_json to_json(const StartProfile& profile);
// One line per span, with a bar; ASCII.
std::vector<std::string> to_lines(const StartProfile& profile);
// A picture of the same.
std::string to_svg(const StartProfile& profile);

}  // namespace agent_vm

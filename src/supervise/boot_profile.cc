#include "supervise/boot_profile.h"

#include <algorithm>
#include <charconv>

#include "base/text.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr std::size_t kMostUnits = 12;
constexpr std::size_t kLongestName = 60;

// Microseconds, as systemd prints them.
constexpr const char* kScript = R"sh(
dmesg | sed -n 's/^\[ *\([0-9]*\)\.\([0-9]*\)\] Run \/init as init process$/Kernel=\1\2/p'
systemctl show --property=UserspaceTimestampMonotonic
systemctl show --all --property=Id --property=InactiveExitTimestampMonotonic \
  --property=ActiveEnterTimestampMonotonic '*.service'
)sh";

struct Unit {
  std::string name;
  double begin_ms = 0;
  double end_ms = 0;
};

double milliseconds(std::string_view microseconds) {
  std::uint64_t value = 0;
  const auto parsed =
      std::from_chars(microseconds.data(), microseconds.data() + microseconds.size(), value);
  return parsed.ec == std::errc() ? static_cast<double>(value) / 1000 : 0;
}

}  // namespace

json parse_boot_profile(std::string_view text) {
  json profile = {{"kernel_ms", 0.0}, {"userspace_ms", 0.0}};
  std::vector<Unit> units(1);
  for (const auto& line : split_lines(text)) {
    const auto equals = line.find('=');
    if (equals == std::string::npos) {
      units.emplace_back();  // an empty line is between two units
      continue;
    }
    const std::string_view name = std::string_view(line).substr(0, equals);
    const std::string_view value = std::string_view(line).substr(equals + 1);
    if (name == "Kernel") profile["kernel_ms"] = milliseconds(value);
    if (name == "UserspaceTimestampMonotonic") {
      profile["userspace_ms"] = milliseconds(value);
      units.emplace_back();
    }
    if (name == "Id") units.back().name = escape_line(value.substr(0, kLongestName));
    if (name == "InactiveExitTimestampMonotonic") units.back().begin_ms = milliseconds(value);
    if (name == "ActiveEnterTimestampMonotonic") units.back().end_ms = milliseconds(value);
  }
  std::erase_if(units, [](const Unit& unit) {
    return unit.name.empty() || unit.begin_ms <= 0 || unit.end_ms <= unit.begin_ms;
  });
  std::ranges::sort(units, std::ranges::greater(),
                    [](const Unit& unit) { return unit.end_ms - unit.begin_ms; });
  if (units.size() > kMostUnits) units.resize(kMostUnits);
  std::ranges::sort(units, {}, &Unit::begin_ms);
  json list = json::array();
  for (const auto& unit : units) {
    list.push_back(
        {{"name", unit.name}, {"begin_ms", unit.begin_ms}, {"ms", unit.end_ms - unit.begin_ms}});
  }
  profile["units"] = std::move(list);
  return profile;
}

Task<Result<json>> ask_boot_profile(GuestAgent& agent, Deadline deadline) {
  const auto answer = co_await agent.run_script(kScript, "", deadline);
  if (!answer) co_return tl::unexpected(answer.error());
  co_return parse_boot_profile(answer->out);
}

}  // namespace agent_vm

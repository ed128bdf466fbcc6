#include <time.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/net.h"

namespace agent_vm {

using nlohmann::json;

namespace {

std::string text_of(const json& line, const char* member) {
  const auto found = line.find(member);
  if (found == line.end() || found->is_null()) return "";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

// "2026-01-31T12:00:00.123Z" as the time of day here.
std::string time_of_day(const std::string& utc) {
  tm parts{};
  if (::strptime(utc.c_str(), "%Y-%m-%dT%H:%M:%S", &parts) == nullptr) return utc;
  const time_t when = ::timegm(&parts);
  tm local{};
  if (::localtime_r(&when, &local) == nullptr) return utc;
  return fmt::format("{:02}:{:02}:{:02}", local.tm_hour, local.tm_min, local.tm_sec);
}

std::string dropped(const json& line) {
  std::string what;
  for (const auto* kind : {"tcp", "udp", "other", "spoofed"}) {
    if (const std::string count = text_of(line, kind); !count.empty() && count != "0")
      what += fmt::format("{}{} {}", what.empty() ? "" : ", ", count, kind);
  }
  return fmt::format("packets that lead nowhere: {}", what);
}

std::string request(const json& line) {
  std::string what = text_of(line, "method") + " " + text_of(line, "url");
  const std::string why = text_of(line, "why") + text_of(line, "error");
  if (!why.empty()) return fmt::format("{}  ({})", what, why);
  const auto received = parse_unsigned(text_of(line, "received")).value_or(0);
  what += fmt::format("  {}, {} ms", format_size(received), text_of(line, "ms"));
  if (const std::string secrets = text_of(line, "secrets"); !secrets.empty())
    what += fmt::format("  with {}", secrets);
  return what;
}

}  // namespace

std::string net_line(const Output& out, std::string_view text) {
  const json line = json::parse(text, nullptr, false);
  if (!line.is_object()) return escape_line(text);
  const std::string event = text_of(line, "event");
  const bool allowed = text_of(line, "decision") == "allow";
  const std::string status = text_of(line, "status");
  const bool well = allowed && !status.empty() && status[0] < '4';
  const std::string what =
      event == "request" ? request(line)
      : event == "dropped"
          ? dropped(line)
          : fmt::format("{} {} ({})", event, text_of(line, "host"), text_of(line, "why"));
  const std::string mark = event != "request" ? event
                           : allowed          ? status.empty() ? "failed" : status
                                              : "refused";
  return fmt::format("{}  {}  {}", time_of_day(text_of(line, "time")),
                     out.paint(well      ? Colour::kGreen
                               : allowed ? Colour::kYellow
                                         : Colour::kRed,
                               fmt::format("{:<7}", mark)),
                     escape_line(what));
}

}  // namespace agent_vm

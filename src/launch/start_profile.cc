#include "launch/start_profile.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr const char* kIdentityPhase = "identity";
constexpr const char* kBootPhase = "guest agent";
constexpr std::size_t kBarColumns = 40;

double milliseconds_between(StartProfile::Clock::time_point from,
                            StartProfile::Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

// The numbers of a guest are claims: none, negative or huge ones count as nothing.
double milliseconds_of(const json& object, const char* member) {
  constexpr double kMost = 3.6e6;
  if (!object.is_object() || !object.contains(member) || !object[member].is_number()) return 0;
  return std::clamp(object[member].get<double>(), 0.0, kMost);
}

std::string name_of(const json& object) {
  const bool named = object.is_object() && object.contains("name") && object["name"].is_string();
  return named ? escape_line(object["name"].get<std::string>()) : "?";
}

// Steps of which only the durations are known, laid one after the other up to `end_ms`.
std::vector<StartSpan> lay_before(double end_ms, const json& steps) {
  std::vector<StartSpan> spans;
  double total = 0;
  for (const auto& step : steps) total += milliseconds_of(step, "ms");
  double at = std::max(0.0, end_ms - total);
  for (const auto& step : steps) {
    const double took = milliseconds_of(step, "ms");
    spans.push_back({"guest", name_of(step), at, at + took});
    at += took;
  }
  return spans;
}

std::string escape_xml(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '<') {
      escaped += "&lt;";
    } else if (c == '&') {
      escaped += "&amp;";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

}  // namespace

void StartProfile::take(const json& result) {
  double before = 0;
  const json none = json::array();
  for (const auto& phase : result.value("phases", none)) {
    const Clock::time_point ended{Clock::duration(phase.value("end_ns", std::int64_t{0}))};
    const StartSpan span{"host", name_of(phase), before, milliseconds_between(begin, ended)};
    spans.push_back(span);
    before = span.end_ms;
    if (span.name != kIdentityPhase) continue;
    const json steps = result.value("identity", none);
    if (!steps.is_array()) continue;
    const auto inside = lay_before(span.end_ms, steps);
    spans.insert(spans.end(), inside.begin(), inside.end());
  }
  booted = result.value("booted", false);
}

void StartProfile::finish() {
  end = Clock::now();
  if (login_began)
    spans.push_back({"host", "SSH login", milliseconds_between(begin, *login_began), total_ms()});
}

void StartProfile::take_boot(const json& boot) {
  const auto at = std::ranges::find(spans, kBootPhase, &StartSpan::name);
  if (at == spans.end() || !boot.is_object()) return;
  const double userspace = milliseconds_of(boot, "userspace_ms");
  const double kernel = std::max(0.0, std::min(milliseconds_of(boot, "kernel_ms"), userspace));
  // The kernel's clock starts when QEMU hands over to it, which nobody on the host sees.
  const double power_on = at->begin_ms;
  std::vector<StartSpan> inside{{"guest", "kernel", power_on, power_on + kernel},
                                {"guest", "initramfs", power_on + kernel, power_on + userspace},
                                {"guest", "systemd, until the agent", power_on + userspace,
                                 std::max(power_on + userspace, at->end_ms)}};
  json none = json::array();
  for (const auto& unit : boot.value("units", none)) {
    const double from = power_on + milliseconds_of(unit, "begin_ms");
    inside.push_back({"guest", "  " + name_of(unit), from, from + milliseconds_of(unit, "ms")});
  }
  spans.insert(at + 1, inside.begin(), inside.end());
}

double StartProfile::total_ms() const {
  return milliseconds_between(begin, end);
}

nlohmann::ordered_json to_json(const StartProfile& profile) {
  auto spans = nlohmann::ordered_json::array();
  for (const auto& span : profile.spans) {
    spans.push_back({{"where", span.where},
                     {"name", trim(span.name)},
                     {"begin_ms", span.begin_ms},
                     {"end_ms", span.end_ms}});
  }
  return {
      {"total_ms", profile.total_ms()}, {"booted", profile.booted}, {"spans", std::move(spans)}};
}

std::vector<std::string> to_lines(const StartProfile& profile) {
  const double total = std::max(profile.total_ms(), 1.0);
  std::vector<std::string> lines{fmt::format("The start took {:.0f} ms. The guest was {}.", total,
                                             profile.booted ? "booted" : "resumed")};
  for (const auto& span : profile.spans) {
    const auto column = [&](double ms) {
      return std::min(static_cast<std::size_t>(std::max(ms, 0.0) / total * kBarColumns),
                      kBarColumns - 1);
    };
    const std::size_t from = column(span.begin_ms);
    const std::size_t to = std::max(from, column(span.end_ms));
    std::string bar(kBarColumns, ' ');
    bar.replace(from, to - from + 1, to - from + 1, span.where == "host" ? '#' : '=');
    lines.push_back(fmt::format("{:<6}{:<30.30} |{}| {:6.0f} ms", span.where, span.name, bar,
                                span.end_ms - span.begin_ms));
  }
  return lines;
}

std::string to_svg(const StartProfile& profile) {
  constexpr int kRow = 18;
  constexpr int kLabels = 260;
  constexpr int kChart = 560;
  constexpr int kTop = 34;
  const double total = std::max(profile.total_ms(), 1.0);
  const int height = kTop + kRow * static_cast<int>(profile.spans.size()) + 10;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n"
      "<text x=\"8\" y=\"20\" font-size=\"14\">A start of {2:.0f} ms; the guest was {3}. "
      "Blue: host, orange: guest.</text>\n",
      kLabels + kChart + 90, height, total, profile.booted ? "booted" : "resumed");
  int y = kTop;
  for (const auto& span : profile.spans) {
    const double x = kLabels + std::max(span.begin_ms, 0.0) / total * kChart;
    const double width = std::max((span.end_ms - span.begin_ms) / total * kChart, 1.0);
    svg += fmt::format(
        "<text x=\"8\" y=\"{}\" xml:space=\"preserve\">{}</text>"
        "<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\"/>"
        "<text x=\"{:.1f}\" y=\"{}\">{:.0f} ms</text>\n",
        y + 13, escape_xml(span.name), x, y + 2, width, kRow - 4,
        span.where == "host" ? "#3b6ea5" : "#d98324", x + width + 4, y + 13,
        span.end_ms - span.begin_ms);
    y += kRow;
  }
  return svg + "</svg>\n";
}

}  // namespace agent_vm

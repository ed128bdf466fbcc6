#include "base/text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numeric>

namespace agent_vm {
namespace {

// Length of the valid UTF-8 sequence at the start of `text` and its code point; 0 when invalid.
struct Decoded {
  std::size_t length = 0;
  char32_t code_point = 0;
};

Decoded decode_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {1, first};
  std::size_t length = 0;
  char32_t code_point = 0;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
    code_point = first & 0x1FU;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    code_point = first & 0x0FU;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    code_point = first & 0x07U;
  } else {
    return {};
  }
  if (text.size() < length) return {};
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return {};
    code_point = (code_point << 6U) | (byte(i) & 0x3FU);
  }
  constexpr std::array<char32_t, 5> kSmallest{0, 0, 0x80, 0x800, 0x10000};
  if (code_point < kSmallest.at(length)) return {};
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point <= 0xDFFF)) return {};
  return {length, code_point};
}

bool terminal_acts_on(char32_t c) {
  if (c < 0x20 || c == 0x7F) return true;
  if (c >= 0x80 && c <= 0x9F) return true;  // C1: a CSI in one byte
  // Bidirectional overrides and isolates make text read differently from what it is.
  return (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0x200E ||
         c == 0x200F || c == 0x2028 || c == 0x2029;
}

std::string escape(std::string_view text, bool keep_layout) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    Decoded decoded = decode_utf8(text);
    const bool valid = decoded.length > 0;
    if (!valid) decoded.length = 1;
    const bool layout = keep_layout && (text[0] == '\n' || text[0] == '\t');
    if (valid && (layout || !terminal_acts_on(decoded.code_point))) {
      out.append(text.substr(0, decoded.length));
    } else {
      for (const char c : text.substr(0, decoded.length)) {
        out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
      }
    }
    text.remove_prefix(decoded.length);
  }
  return out;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0U);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t previous = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = previous;
    }
  }
  return row[b.size()];
}

// Splits "1.5GiB" into 1.5 and "GiB".
Result<std::pair<double, std::string_view>> parse_quantity(std::string_view text) {
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(value) || value < 0 || text.starts_with('-')) {
    return fail(ErrorKind::kInvalidInput, "'{}' is not a number with a unit", escape_line(text));
  }
  return std::pair{value, trim(text.substr(static_cast<std::size_t>(end - text.data())))};
}

}  // namespace

std::string escape_control(std::string_view text) {
  return escape(text, true);
}
std::string escape_line(std::string_view text) {
  return escape(text, false);
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const auto at = text.find(separator);
    parts.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::vector<std::string> split_lines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const auto at = text.find('\n');
    std::string_view line = text.substr(0, at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.emplace_back(line);
    if (at == std::string_view::npos) break;
    text.remove_prefix(at + 1);
  }
  return lines;
}

std::string join(std::span<const std::string> parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string shell_quote(std::string_view argument) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  if (!argument.empty() && argument.find_first_not_of(kPlain) == std::string_view::npos) {
    return std::string(argument);
  }
  std::string out = "'";
  for (const char c : argument) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string shell_join(std::span<const std::string> argv) {
  std::string out;
  for (const auto& argument : argv) {
    if (!out.empty()) out += ' ';
    out += shell_quote(argument);
  }
  return out;
}

Result<std::uint64_t> parse_size(std::string_view text) {
  const auto parsed = parse_quantity(trim(text));
  constexpr std::string_view kUnits = "KMGTP";
  if (parsed) {
    auto [value, unit] = *parsed;
    int shift = 0;
    bool known = true;
    if (!unit.empty() && unit != "B") {
      const auto at = kUnits.find(static_cast<char>(unit[0] & ~0x20));
      const std::string_view rest = unit.substr(1);
      known = at != std::string_view::npos && (rest.empty() || rest == "B" || rest == "iB");
      shift = known ? 10 * (static_cast<int>(at) + 1) : 0;
    }
    const double bytes = std::ldexp(value, shift);
    if (known && bytes < 9.2e18) return static_cast<std::uint64_t>(bytes);
  }
  return fail(ErrorKind::kInvalidInput, "'{}' is not a size; write it like 512M or 2G",
              escape_line(text));
}

std::string format_size(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 6> kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  const bool whole = std::abs(value - std::round(value)) < 0.05;
  return whole ? fmt::format("{:.0f} {}", value, kUnits.at(unit))
               : fmt::format("{:.1f} {}", value, kUnits.at(unit));
}

Result<std::uint64_t> parse_duration_ms(std::string_view text) {
  const auto parsed = parse_quantity(trim(text));
  if (parsed) {
    const auto [value, unit] = *parsed;
    double scale = 0;
    if (unit.empty() || unit == "s") scale = 1000;
    if (unit == "ms") scale = 1;
    if (unit == "m") scale = 60'000;
    if (unit == "h") scale = 3'600'000;
    if (scale > 0 && value * scale < 9e15) return static_cast<std::uint64_t>(value * scale);
  }
  return fail(ErrorKind::kInvalidInput, "'{}' is not a duration; write it like 30s, 5m or 2h",
              escape_line(text));
}

std::string format_duration(std::uint64_t seconds) {
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m {}s", seconds / 60, seconds % 60);
  if (seconds < 86400) {
    return fmt::format("{}h {}m {}s", seconds / 3600, seconds / 60 % 60, seconds % 60);
  }
  return fmt::format("{}d {}h {}m", seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
}

std::optional<std::uint64_t> parse_unsigned(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates) {
  std::optional<std::string> best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance && distance < candidate.size()) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string to_hex(std::span<const std::uint8_t> bytes) {
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

namespace {
constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
}

std::string lower(std::string_view text) {
  std::string lowered(text);
  for (char& c : lowered) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lowered;
}

std::string base64_encode(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto at = [&](std::size_t k) -> std::uint32_t {
      return i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U;
    };
    const std::uint32_t group = at(0) << 16U | at(1) << 8U | at(2);
    out += kBase64[group >> 18U & 63U];
    out += kBase64[group >> 12U & 63U];
    out += i + 1 < bytes.size() ? kBase64[group >> 6U & 63U] : '=';
    out += i + 2 < bytes.size() ? kBase64[group & 63U] : '=';
  }
  return out;
}

Result<std::string> base64_decode(std::string_view text) {
  std::string out;
  std::uint32_t group = 0;
  int bits = 0;
  std::size_t padding = 0;
  for (const char c : text) {
    if (c == '\n' || c == '\r') continue;
    if (c == '=') {
      ++padding;
      continue;
    }
    const auto value = kBase64.find(c);
    if (value == std::string_view::npos || padding > 0) return fail("not base64");
    group = group << 6U | static_cast<std::uint32_t>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out += static_cast<char>(group >> static_cast<unsigned>(bits) & 0xFFU);
    }
  }
  if (padding > 2 || bits >= 6) return fail("not base64: truncated");
  return out;
}

}  // namespace agent_vm

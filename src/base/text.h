// Small pure functions on strings.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace agent_vm {

// Replaces every byte that a terminal could act on (C0 except \n and \t, DEL, C1 in UTF-8, invalid
// UTF-8, bidirectional controls) by \xNN, so that text from the guest is safe to print (S25).
std::string escape_control(std::string_view text);
// The same for a field that must stay on one line: also \n and \t.
std::string escape_line(std::string_view text);

std::vector<std::string> split(std::string_view text, char separator);
// Lines without their terminators; a last line without one counts.
std::vector<std::string> split_lines(std::string_view text);
std::string join(std::span<const std::string> parts, std::string_view separator);
std::string_view trim(std::string_view text);

// A shell command line that means exactly these arguments: what to paste into sh.
std::string shell_quote(std::string_view argument);
std::string shell_join(std::span<const std::string> argv);

// "512M", "2G", "1.5GiB", "4096" -> bytes; suffixes are powers of 1024. Refuses anything else.
Result<std::uint64_t> parse_size(std::string_view text);
// 1610612736 -> "1.5 GiB"
std::string format_size(std::uint64_t bytes);
// "30s", "5m", "2h", "250ms", "10" (seconds) -> milliseconds.
Result<std::uint64_t> parse_duration_ms(std::string_view text);
// 3725 -> "1h 2m 5s"
std::string format_duration(std::uint64_t seconds);

// Whole-string decimal; no sign, no spaces.
std::optional<std::uint64_t> parse_unsigned(std::string_view text);

// Of `candidates`, the one closest to `word` by edit distance when it is close enough to be a typo
// (distance <= 1/3 of the length, at least 2).
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates);

std::string to_hex(std::span<const std::uint8_t> bytes);
// ASCII letters only.
std::string lower(std::string_view text);
std::string base64_encode(std::string_view bytes);
Result<std::string> base64_decode(std::string_view text);

}  // namespace agent_vm

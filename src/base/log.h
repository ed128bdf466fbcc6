// Logging for people: one line per event on stderr (or into a file), off by default below "warn".
// --verbose shows info (start phases, children), --debug everything (argv, QMP traffic).
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace agent_vm::log {

enum class Level { kDebug, kInfo, kWarn, kError };

// Where lines go and from which level on. Called once by main; the default is stderr from kWarn.
void to_stderr(Level level);
// Appends to `path`, rotated at `max_bytes` with one older file kept. The guest can make us log,
// so no log grows without a bound (S23).
void to_file(const std::string& path, Level level, std::size_t max_bytes);
Level level();

void write(Level level, std::string_view text);

template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  if (level() <= Level::kDebug)
    write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (level() <= Level::kInfo)
    write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace agent_vm::log

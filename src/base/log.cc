#include "base/log.h"

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "base/text.h"

namespace agent_vm::log {
namespace {

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// spdlog's default logger is the one piece of process-wide state that we keep: it is write-only,
// and passing a logger through every constructor would hide what those constructors really need.
Level current_level = Level::kWarn;

void install(spdlog::sink_ptr sink, Level level) {
  auto logger = std::make_shared<spdlog::logger>("", std::move(sink));
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %^%l%$ %v", spdlog::pattern_time_type::utc);
  logger->set_level(to_spdlog(level));
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
  current_level = level;
}

}  // namespace

void to_stderr(Level level) {
  install(std::make_shared<spdlog::sinks::stderr_sink_mt>(), level);
}

void to_file(const std::string& path, Level level, std::size_t max_bytes) {
  install(std::make_shared<spdlog::sinks::rotating_file_sink_mt>(path, max_bytes, 1), level);
}

Level level() {
  return current_level;
}

void write(Level level, std::string_view text) {
  // Guest-controlled bytes end up in log lines; no terminal may act on them (S25).
  spdlog::default_logger_raw()->log(to_spdlog(level), "{}", escape_control(text));
}

}  // namespace agent_vm::log

#include "workspace/environment.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace agent_vm::workspace {

process::Environment child_environment() {
  static constexpr std::array<std::string_view, 12> kOwn = {"NOTIFY_SOCKET",
                                                            "WATCHDOG_USEC",
                                                            "WATCHDOG_PID",
                                                            "LISTEN_FDS",
                                                            "LISTEN_PID",
                                                            "LISTEN_FDNAMES",
                                                            "CREDENTIALS_DIRECTORY",
                                                            "INVOCATION_ID",
                                                            "JOURNAL_STREAM",
                                                            "SYSTEMD_EXEC_PID",
                                                            "MAINPID",
                                                            "MEMORY_PRESSURE_WATCH"};
  process::Environment environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view key = text.substr(0, equals);
    if (std::find(kOwn.begin(), kOwn.end(), key) != kOwn.end()) continue;
    environment.emplace(key, text.substr(equals + 1));
  }
  environment.try_emplace("PATH", "/usr/local/bin:/usr/bin:/bin");
  return environment;
}

process::Environment helper_environment() {
  process::Environment environment = child_environment();
  environment["LC_ALL"] = "C.UTF-8";
  environment["GIT_TERMINAL_PROMPT"] = "0";
  environment["GIT_PAGER"] = "cat";
  environment["PAGER"] = "cat";
  environment["TERM"] = "dumb";
  // A configuration file of ripgrep's could add arguments.
  environment.erase("RIPGREP_CONFIG_PATH");
  return environment;
}

}  // namespace agent_vm::workspace

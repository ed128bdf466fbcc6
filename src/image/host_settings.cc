#include "image/host_settings.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "os/spawn.h"

namespace agent_vm {

std::vector<std::string> fetch_environment() {
  constexpr std::array<std::string_view, 8> kNames{
      "http_proxy", "https_proxy", "no_proxy", "all_proxy",
      "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "NODE_EXTRA_CA_CERTS"};
  auto environment = host_environment();
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view variable = *entry;
    const auto name = variable.substr(0, variable.find('='));
    if (std::ranges::find(kNames, name) != kNames.end() || name.starts_with("npm_config_") ||
        name.starts_with("NPM_CONFIG_")) {
      environment.emplace_back(variable);
    }
  }
  return environment;
}

std::string apt_network_settings(std::string_view apt_config_dump) {
  constexpr std::array<std::string_view, 9> kPrefixes{
      "Acquire::http::",         "Acquire::https::",
      "Acquire::ftp::",          "Acquire::Check-Valid-Until ",
      "Acquire::Check-Date ",    "Acquire::Retries ",
      "Acquire::ForceIPv4 ",     "Acquire::ForceIPv6 ",
      "Acquire::Max-FutureTime "};
  std::string kept;
  for (const auto& line : split_lines(apt_config_dump)) {
    const bool wanted = std::ranges::any_of(
        kPrefixes, [&](std::string_view prefix) { return line.starts_with(prefix); });
    if (wanted) kept += line + "\n";
  }
  return kept;
}

}  // namespace agent_vm

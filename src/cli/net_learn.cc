#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"
#include "cli/net.h"
#include "config/git_rule.h"
#include "launch/package_sources.h"
#include "os/files.h"
#include "state/audit_log.h"

namespace agent_vm {

using nlohmann::json;

Result<std::vector<std::string>> rules_for_refused(const VmDirectory& vm) {
  constexpr std::size_t kMost = 64U << 20U;
  std::map<std::string, std::set<std::string>> methods;  // of each host
  std::set<std::string> repositories;                    // behind SSH, as rules
  const std::string name = fmt::format("{}/{}", kAuditFolder, kAuditFile);
  for (const auto& file : {name + ".1", name}) {
    if (!exists_at(vm.fd(), file)) continue;
    for (const auto& text : split_lines(TRY(read_file_at(vm.fd(), file, kMost)))) {
      const json line = json::parse(text, nullptr, false);
      // What a rule refuses, and what is no plain web request, is not to be allowed by learning.
      if (!line.is_object() || line.value("rule", json()) != "mode allowlist") continue;
      const std::string url = line.value("url", "");
      if (const auto git = parse_git_url(url, line.value("method", "") == "PUSH")) {
        repositories.insert(git->as_rule());
        continue;
      }
      methods[host_of_url(url)].insert(line.value("method", ""));
    }
  }
  std::vector<std::string> rules(repositories.begin(), repositories.end());
  for (const auto& [host, used] : methods) {
    const std::vector<std::string> list(used.begin(), used.end());
    std::string rule = fmt::format("{} {}", join(list, ","), host);
    if (parse_network_rule(rule)) rules.push_back(std::move(rule));
  }
  return rules;
}

}  // namespace agent_vm

#include "launch/presets.h"

#include <algorithm>

namespace agent_vm {
namespace {

// Each once; what a URL of the configuration makes that is no rule allows nothing.
std::vector<std::string> tidy(const std::vector<std::string>& rules) {
  std::vector<std::string> kept;
  for (const auto& rule : rules) {
    if (valid_network_entry(rule) && std::ranges::find(kept, rule) == kept.end())
      kept.push_back(rule);
  }
  return kept;
}

std::vector<std::string> git_rules(const VmConfig& config) {
  auto rules = git_fetch_rules(config.origin_repo);
  for (auto& rule : git_fetch_rules(config.upstream_repo)) rules.push_back(std::move(rule));
  return rules;
}

}  // namespace

std::vector<std::string> git_fetch_rules(std::string_view url) {
  const std::string host = host_of_url(url);
  std::string path = path_of_url(url);
  if (host.empty() || path.empty()) return {};
  if (path.ends_with(".git")) path.resize(path.size() - 4);
  std::vector<std::string> rules;
  for (const auto* suffix : {"", ".git"}) {
    rules.push_back(fmt::format("GET {}{}{}/info/refs", host, path, suffix));
    rules.push_back(fmt::format("POST {}{}{}/git-upload-pack", host, path, suffix));
  }
  return tidy(rules);
}

Result<std::vector<std::string>> expand_preset(const std::string& preset, const VmConfig& config,
                                               const PackageSources& sources) {
  if (preset == "@apt") return tidy(apt_rules(sources));
  if (preset == "@npm") return tidy(npm_rules(sources));
  if (preset == "@pip") return tidy(pip_rules(sources));
  if (preset == "@git-origin") return tidy(git_rules(config));
  if (preset == "@anthropic") return std::vector<std::string>{"api.anthropic.com"};
  if (preset == "@openai") return std::vector<std::string>{"api.openai.com"};
  return valid_network_entry(preset).map([] { return std::vector<std::string>(); });
}

}  // namespace agent_vm

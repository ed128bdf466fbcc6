#include "launch/presets.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/text.h"
#include "image/apt_sources.h"
#include "image/host_settings.h"
#include "os/files.h"
#include "os/run.h"
#include "os/sha256.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr const char* kNpmCache = "npm-hosts.json";

void add(std::vector<std::string>& rules, std::string rule) {
  if (valid_network_entry(rule) && std::ranges::find(rules, rule) == rules.end()) {
    rules.push_back(std::move(rule));
  }
}

Result<std::vector<std::string>> apt_rules() {
  std::vector<std::string> rules;
  for (const auto& source : TRY(read_machine_sources("/etc/apt"))) {
    add(rules, "GET,HEAD " + host_of_url(source.uri));
  }
  return rules;
}

// Changes whenever npm's answer may change: asking npm takes half a second, of every start.
std::string npm_fingerprint() {
  std::string seen;
  const char* home = std::getenv("HOME");
  for (const std::string& path :
       {std::string(home == nullptr ? "" : home) + "/.npmrc", std::string("/etc/npmrc"),
        std::string("/usr/etc/npmrc"), std::string("/usr/local/etc/npmrc"),
        std::string("/usr/bin/npm"), std::string("/usr/local/bin/npm")}) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) continue;
    seen +=
        fmt::format("{} {} {} {}\n", path, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
  }
  for (const auto& variable : fetch_environment()) {
    if (variable.starts_with("npm_config_") || variable.starts_with("NPM_CONFIG_") ||
        variable.starts_with("PATH=")) {
      seen += variable + "\n";
    }
  }
  return sha256_hex(seen);
}

// Of npm's own registry and of those that scopes have.
Result<std::vector<std::string>> ask_npm(const Deadline& deadline) {
  // Not in the repository: an .npmrc there is the repository's word, not the owner's.
  const auto listed = run({.argv = {"npm", "config", "list", "--json"},
                           .environment = fetch_environment(),
                           .working_directory = "/",
                           .deadline = deadline});
  std::vector<std::string> hosts;
  if (!listed && listed.error().kind() == ErrorKind::kMissing) return hosts;
  if (!listed) return tl::unexpected(listed.error());
  const json settings = json::parse(listed->out, nullptr, false);
  if (!settings.is_object()) return hosts;
  for (const auto& [key, value] : settings.items()) {
    if ((key == "registry" || key.ends_with(":registry")) && value.is_string()) {
      add(hosts, host_of_url(value.get<std::string>()));
    }
  }
  return hosts;
}

Result<std::vector<std::string>> npm_rules(const VmDirectory& vm, const Deadline& deadline) {
  const std::string fingerprint = npm_fingerprint();
  if (const auto text = vm.read_small_file(kNpmCache)) {
    const json cached = json::parse(*text, nullptr, false);
    if (cached.is_object() && cached.value("fingerprint", json()) == fingerprint &&
        cached.contains("hosts") && cached["hosts"].is_array()) {
      std::vector<std::string> rules;
      for (const auto& host : cached["hosts"]) {
        if (host.is_string()) add(rules, host.get<std::string>());
      }
      return rules;
    }
  }
  const auto hosts = TRY_CONTEXT(ask_npm(deadline), "asking npm for its registry");
  const json cache = {{"fingerprint", fingerprint}, {"hosts", hosts}};
  TRY(write_file_atomic(vm.fd(), kNpmCache, cache.dump() + "\n", 0600));
  return hosts;
}

}  // namespace

std::string host_of_url(std::string_view url) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (!url.starts_with(scheme)) continue;
    std::string_view authority = url.substr(scheme.size());
    authority = authority.substr(0, authority.find_first_of("/?#"));
    if (const auto at = authority.rfind('@'); at != std::string_view::npos)
      authority.remove_prefix(at + 1);
    std::string host(authority.substr(0, authority.find(':')));
    for (char& c : host) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    return host;
  }
  return "";
}

std::vector<std::string> git_fetch_rules(std::string_view url) {
  const std::string host = host_of_url(url);
  const auto slash = url.find('/', url.find("://") + 3);
  if (host.empty() || slash == std::string_view::npos) return {};
  std::string path(url.substr(slash));
  while (path.ends_with('/')) path.pop_back();
  if (path.ends_with(".git")) path.resize(path.size() - 4);
  std::vector<std::string> rules;
  for (const auto* suffix : {"", ".git"}) {
    add(rules, fmt::format("GET {}{}{}/info/refs", host, path, suffix));
    add(rules, fmt::format("POST {}{}{}/git-upload-pack", host, path, suffix));
  }
  return rules;
}

Result<std::vector<std::string>> expand_preset(const std::string& preset, const VmDirectory& vm,
                                               const VmConfig& config, const Deadline& deadline) {
  if (preset == "@apt") return apt_rules();
  if (preset == "@npm") return npm_rules(vm, deadline);
  if (preset == "@anthropic") return std::vector<std::string>{"api.anthropic.com"};
  if (preset == "@openai") return std::vector<std::string>{"api.openai.com"};
  if (preset == "@git-origin") {
    auto rules = git_fetch_rules(config.origin_repo);
    for (auto& rule : git_fetch_rules(config.upstream_repo)) add(rules, std::move(rule));
    return rules;
  }
  return valid_network_entry(preset).map([] { return std::vector<std::string>(); });
}

}  // namespace agent_vm

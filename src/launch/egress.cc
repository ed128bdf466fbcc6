#include "launch/egress.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/text.h"
#include "config/git_rule.h"
#include "config/ip_range.h"
#include "launch/presets.h"
#include "os/files.h"

namespace agent_vm {

using nlohmann::json;

namespace {

// Debian's, which its mitmproxy package belongs to.
constexpr const char* kPython = "/usr/bin/python3";
constexpr const char* kMitmproxy = "/usr/lib/python3/dist-packages/mitmproxy";
constexpr const char* kSystemCertificates = "/etc/ssl/certs/ca-certificates.crt";

json rule_to_json(const NetworkRule& rule, bool allows, const std::string& text,
                  const std::string& origin) {
  return {{"effect", allows ? "allow" : "deny"},
          {"methods", rule.methods},
          {"host", rule.host},
          {"path", rule.path},
          {"range", rule.range},
          {"text", text},
          {"from", origin}};
}

// What this machine itself is reached by is as private as its loopback.
std::vector<std::string> own_addresses() {
  std::vector<std::string> found;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return found;
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
    std::array<char, INET_ADDRSTRLEN> text{};
    ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr,
                text.data(), text.size());
    found.push_back(std::string(text.data()) + "/32");
  }
  ::freeifaddrs(list);
  return found;
}

std::string trusted_bundle() {
  const char* bundle = std::getenv("SSL_CERT_FILE");  // NOLINT(concurrency-mt-unsafe)
  return bundle != nullptr && bundle[0] == '/' ? bundle : kSystemCertificates;
}

class RuleList {
 public:
  RuleList(const VmConfig& config, const PackageSources& sources)
      : config_(config), sources_(sources) {}

  Status add(const std::vector<std::string>& entries, bool allows, const std::string& origin) {
    for (const auto& entry : entries) {
      // The supervisor decides about these, not the proxy.
      if (is_git_rule(entry)) {
        git_rules_.push_back(
            {{"effect", allows ? "allow" : "deny"}, {"text", entry}, {"from", origin}});
        continue;
      }
      if (!entry.starts_with('@')) {
        rules_.push_back(rule_to_json(TRY(parse_network_rule(entry)), allows, entry, origin));
        continue;
      }
      const std::vector<std::string> expanded = TRY(expand_preset(entry, config_, sources_));
      for (const auto& rule : expanded) {
        rules_.push_back(rule_to_json(TRY(parse_network_rule(rule)), allows, rule, entry));
      }
    }
    return {};
  }
  json take() { return std::move(rules_); }
  json take_git() { return std::move(git_rules_); }

 private:
  const VmConfig& config_;
  const PackageSources& sources_;
  json rules_ = json::array();
  json git_rules_ = json::array();
};

}  // namespace

EgressInputs egress_inputs(const InstallLayout& layout, const VmDirectory& vm) {
  return {.uplink = layout.uplink,
          .resolver = layout.resolver,
          .python = kPython,
          .proxy_files = layout.proxy_files,
          .policy_folder = vm.path() + "/" + kPolicyFolder,
          .certificates = trusted_bundle()};
}

Status check_egress() {
  const auto missing = [](std::string what, std::string hint) {
    return tl::unexpected(Error(ErrorKind::kMissing, std::move(what)).with_hint(std::move(hint)));
  };
  if (::access(kPython, X_OK) != 0 || ::access(kMitmproxy, F_OK) != 0) {
    return missing("mitmproxy, through which a VM reaches the web, is not installed",
                   "sudo apt-get install mitmproxy   (or do without the web: --network off)");
  }
  if (const std::string bundle = trusted_bundle(); ::access(bundle.c_str(), R_OK) != 0) {
    return missing(fmt::format("the certificates {} cannot be read", bundle),
                   "sudo apt-get install ca-certificates");
  }
  return {};
}

Status write_network_records(const VmDirectory& vm, const VmConfig& config,
                             const Deadline& deadline) {
  const NetworkPolicy& policy = config.network;
  const PackageSources sources = find_package_sources(deadline);
  TRY(write_file_atomic(vm.fd(), kPackageSettings, guest_package_settings(sources).dump(1) + "\n",
                        0600));
  RuleList rules(config, sources);
  TRY(rules.add(policy.owner_deny, false, "agent-vm net deny"));
  TRY(rules.add(policy.deny, false, "configuration"));
  TRY(rules.add(policy.owner_allow, true, "agent-vm net allow"));
  TRY(rules.add(policy.allow, true, "configuration"));
  std::vector<std::string> refused = refused_ranges();
  for (auto& address : own_addresses()) refused.push_back(std::move(address));
  const json document = {{"schema", 1},
                         {"vm", config.name},
                         {"mode", to_string(policy.mode)},
                         {"refused", std::move(refused)},
                         {"rules", rules.take()},
                         {"git", rules.take_git()}};
  // The proxy reads it under an id that owns nothing; the VM's own directory keeps others out.
  TRY(make_directory_at(vm.fd(), kPolicyFolder, 0755));
  const Fd folder = TRY(open_beneath(vm.fd(), kPolicyFolder, O_RDONLY | O_DIRECTORY));
  if (::fchmod(folder.get(), 0755) != 0)
    return fail_errno(errno, "cannot open {} to the proxy", kPolicyFolder);
  return write_file_atomic(folder.get(), kPolicyFile, document.dump(1) + "\n", 0644);
}

std::vector<std::string> opened_ranges(const NetworkPolicy& policy) {
  std::vector<std::string> ranges;
  for (const auto* list : {&policy.allow, &policy.owner_allow}) {
    for (const auto& entry : *list) {
      const auto rule = parse_network_rule(entry);
      if (rule && !rule->range.empty() && std::ranges::find(ranges, rule->range) == ranges.end()) {
        ranges.push_back(rule->range);
      }
    }
  }
  return ranges;
}

}  // namespace agent_vm

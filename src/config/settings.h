// What a TOML file may set: a repository's agent-vm.toml, which is untrusted, and the owner's own
// config.toml.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/secrets.h"
#include "config/vm_config.h"

namespace agent_vm {

inline constexpr const char* kRepositoryFile = "agent-vm.toml";
inline constexpr std::size_t kMaxSettingsFile = 64U << 10U;  // bytes

// Only what was set.
struct Settings {
  std::optional<std::uint64_t> memory_bytes;
  std::optional<unsigned> cpus;
  std::optional<std::uint64_t> disk_bytes;
  std::optional<Accel> accel;
  std::optional<bool> sudo;  // the owner's file only
  std::optional<std::string> image_variant;
  std::vector<std::string> packages;
  std::vector<std::string> npm;
  std::map<std::string, McpServer> mcp_servers;
  std::optional<std::string> default_mcp_server;
  std::optional<std::vector<std::string>> allowed_origins;
  std::optional<NetworkMode> network_mode;
  bool network_defaults = true;            // false: without default_network_allow()
  std::vector<std::string> network_allow;  // rules and presets
  std::vector<std::string> network_deny;
  std::map<std::string, SecretSource> secrets;  // the owner's file only; read at each start
};

enum class SettingsOwner {
  kRepository,  // refuses what only the owner may set, and says where that belongs
  kOwner,
};
// `where` names the file in errors, which say line and column.
Result<Settings> parse_settings(std::string_view toml, const std::string& where,
                                SettingsOwner owner);

// Puts `settings` over `config`: values replace; packages, servers and network rules are added.
void apply(const Settings& settings, VmConfig& config);

// One thing that `settings` would give a VM beyond what `base` has.
struct Widening {
  std::string what;  // "memory", "packages"
  std::string from;  // may be empty
  std::string to;
};
std::vector<Widening> widenings(const Settings& settings, const VmConfig& base);

}  // namespace agent_vm

#include "config/settings.h"

#include <algorithm>

#include "base/text.h"

namespace agent_vm {
namespace {

void add_new(std::vector<std::string>& to, const std::vector<std::string>& from) {
  for (const auto& item : from) {
    if (std::ranges::find(to, item) == to.end()) to.push_back(item);
  }
}

std::vector<std::string> not_in(const std::vector<std::string>& wanted,
                                const std::vector<std::string>& present) {
  std::vector<std::string> missing;
  for (const auto& item : wanted) {
    if (std::ranges::find(present, item) == present.end()) missing.push_back(item);
  }
  return missing;
}

std::string describe(const McpServer& server) {
  std::string text = shell_join(server.argv);
  for (const auto& [name, value] : server.environment) {
    text += fmt::format(" {}={}", name, shell_quote(value));
  }
  if (!server.working_directory.empty()) text += " in " + server.working_directory;
  return text;
}

}  // namespace

void apply(const Settings& settings, VmConfig& config) {
  config.memory_bytes = settings.memory_bytes.value_or(config.memory_bytes);
  config.cpus = settings.cpus.value_or(config.cpus);
  config.disk_bytes = settings.disk_bytes.value_or(config.disk_bytes);
  config.accel = settings.accel.value_or(config.accel);
  config.sudo = settings.sudo.value_or(config.sudo);
  config.image.variant = settings.image_variant.value_or(config.image.variant);
  add_new(config.image.packages, settings.packages);
  add_new(config.image.npm, settings.npm);
  for (const auto& [name, server] : settings.mcp_servers) config.mcp_servers[name] = server;
  config.default_mcp_server = settings.default_mcp_server.value_or(config.default_mcp_server);
  config.allowed_origins = settings.allowed_origins.value_or(config.allowed_origins);
  config.network.mode = settings.network_mode.value_or(config.network.mode);
  if (!settings.network_defaults) {
    const auto defaults = default_network_allow();
    std::erase_if(config.network.allow, [&](const std::string& entry) {
      return std::ranges::find(defaults, entry) != defaults.end();
    });
  }
  add_new(config.network.allow, settings.network_allow);
  add_new(config.network.deny, settings.network_deny);
}

std::vector<Widening> widenings(const Settings& settings, const VmConfig& base) {
  std::vector<Widening> found;
  const auto size = [&](const char* what, const std::optional<std::uint64_t>& wanted,
                        std::uint64_t now) {
    if (wanted && *wanted > now) found.push_back({what, format_size(now), format_size(*wanted)});
  };
  size("memory", settings.memory_bytes, base.memory_bytes);
  size("disk", settings.disk_bytes, base.disk_bytes);
  if (settings.cpus && *settings.cpus > base.cpus) {
    found.push_back({"cpus", std::to_string(base.cpus), std::to_string(*settings.cpus)});
  }
  // Only hardware virtualization isolates, so asking for less than the owner's choice widens, and
  // insisting on it narrows.
  if (settings.accel && *settings.accel != base.accel && *settings.accel != Accel::kKvm) {
    found.push_back(
        {"accel", std::string(to_string(base.accel)), std::string(to_string(*settings.accel))});
  }
  if (settings.image_variant && *settings.image_variant != base.image.variant) {
    found.push_back({"image variant", base.image.variant, *settings.image_variant});
  }
  for (const auto& name : not_in(settings.packages, base.image.packages)) {
    found.push_back({"package", "", name});
  }
  for (const auto& spec : not_in(settings.npm, base.image.npm)) {
    found.push_back({"npm package", "", spec});
  }
  for (const auto& [name, server] : settings.mcp_servers) {
    const auto present = base.mcp_servers.find(name);
    if (present != base.mcp_servers.end() && present->second == server) continue;
    found.push_back({"MCP server " + name,
                     present == base.mcp_servers.end() ? "" : describe(present->second),
                     describe(server)});
  }
  for (const auto& origin :
       not_in(settings.allowed_origins.value_or(base.allowed_origins), base.allowed_origins)) {
    found.push_back({"allowed origin", "", origin});
  }
  if (settings.network_mode && is_wider(*settings.network_mode, base.network.mode)) {
    found.push_back({"network mode", std::string(to_string(base.network.mode)),
                     std::string(to_string(*settings.network_mode))});
  }
  for (const auto& rule : not_in(settings.network_allow, base.network.allow)) {
    found.push_back({"network access", "", rule});
  }
  return found;
}

}  // namespace agent_vm

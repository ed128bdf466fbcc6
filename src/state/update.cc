#include "state/update.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "state/create.h"
#include "state/ports.h"

namespace agent_vm {
namespace {

// What was named on the command line before, as if it were named again.
Settings kept_settings(const VmConfig& old) {
  const auto named = [&](std::string_view what) {
    return std::ranges::find(old.explicit_settings, what) != old.explicit_settings.end();
  };
  Settings kept;
  if (named("memory")) kept.memory_bytes = old.memory_bytes;
  if (named("cpus")) kept.cpus = old.cpus;
  if (named("disk")) kept.disk_bytes = old.disk_bytes;
  if (named("accel")) kept.accel = old.accel;
  if (named("image_variant")) kept.image_variant = old.image.variant;
  if (named("allowed_origins")) kept.allowed_origins = old.allowed_origins;
  if (named("network_mode")) kept.network_mode = old.network.mode;
  for (const auto& [name, server] : old.mcp_servers) {
    if (named(mcp_server_setting(name))) kept.mcp_servers[name] = server;
  }
  return kept;
}

Status update_ports(const StateDirectory& state, const VmConfig& old, const UpdateRequest& request,
                    VmConfig& config) {
  if (request.host) {
    config.host = *request.host;
    config.bind_address = TRY(resolve_bind_address(*request.host));
  }
  // A port that stays is not tried: the VM itself may be listening on it.
  if (request.port && *request.port != old.port) {
    config.port = TRY(choose_port(state, {.address = config.bind_address,
                                          .asked = request.port,
                                          .except_vm = old.name,
                                          .what = "MCP port"}));
  }
  if (request.ssh_port && *request.ssh_port != old.ssh_port) {
    config.ssh_port = TRY(choose_port(state, {.address = config.bind_address,
                                              .asked = request.ssh_port,
                                              .except_vm = old.name,
                                              .what = "SSH port"}));
  }
  for (const auto& [asked, name] : {std::pair{request.port.has_value(), kPortSetting},
                                    std::pair{request.ssh_port.has_value(), kSshPortSetting}}) {
    const bool known =
        std::ranges::find(config.explicit_settings, name) != config.explicit_settings.end();
    if (asked && !known) config.explicit_settings.emplace_back(name);
  }
  return {};
}

std::string shown(const nlohmann::json& value) {
  if (value.is_null()) return "";  // what flatten() makes of an empty list or object
  return value.is_string() ? value.get<std::string>() : value.dump();
}

}  // namespace

Result<VmConfig> updated_config(const StateDirectory& state, const VmConfig& old,
                                const UpdateRequest& request) {
  const HostResources host = TRY(HostResources::detect());
  const VmConfig base = base_config(host, request.owner_settings);
  VmConfig config = old;
  config.memory_bytes = base.memory_bytes;
  config.cpus = base.cpus;
  config.disk_bytes = base.disk_bytes;
  config.accel = base.accel;
  config.image = base.image;
  config.mcp_servers = base.mcp_servers;
  config.default_mcp_server = base.default_mcp_server;
  config.allowed_origins = base.allowed_origins;
  config.sudo = base.sudo;
  config.network.mode = base.network.mode;
  config.network.allow = base.network.allow;
  config.network.deny = base.network.deny;
  apply(request.repository_settings, config);
  apply(kept_settings(old), config);
  apply(request.flags, config);
  for (const auto& name : explicit_settings(request.flags)) {
    if (std::ranges::find(config.explicit_settings, name) == config.explicit_settings.end()) {
      config.explicit_settings.push_back(name);
    }
  }
  TRY(update_ports(state, old, request, config));
  TRY(validate(config));
  TRY(validate_for_host(config, host));
  return config;
}

std::vector<Change> differences(const VmConfig& from, const VmConfig& to) {
  const auto before = nlohmann::json::parse(to_json_text(from)).flatten();
  const auto after = nlohmann::json::parse(to_json_text(to)).flatten();
  std::vector<Change> changes;
  const auto name = [](const std::string& pointer) { return pointer.substr(1); };
  for (const auto& [key, value] : before.items()) {
    if (key.starts_with("/explicit")) continue;
    if (!after.contains(key)) {
      changes.push_back({name(key), shown(value), ""});
    } else if (after[key] != value) {
      changes.push_back({name(key), shown(value), shown(after[key])});
    }
  }
  for (const auto& [key, value] : after.items()) {
    if (key.starts_with("/explicit") || before.contains(key)) continue;
    changes.push_back({name(key), "", shown(value)});
  }
  std::erase_if(changes, [](const Change& change) { return change.from == change.to; });
  return changes;
}

}  // namespace agent_vm

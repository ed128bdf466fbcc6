// config.json. Scripts of a predecessor read some of its top-level keys (branch, host, port,
// ssh_port, workspace_path, ssh_key_path, created_at, origin_repo, upstream_repo, vm_name): those
// stay.
#include <limits>
#include <nlohmann/json.hpp>

#include "config/json_fields.h"
#include "config/vm_config.h"

namespace agent_vm {
namespace {

using nlohmann::ordered_json;

// Raise it when the meaning of a key changes, and migrate the older form in parse_vm_config().
constexpr std::uint64_t kSchema = 1;
constexpr std::uint64_t kAny = std::numeric_limits<std::uint64_t>::max();

Status check_schema(JsonFields& fields) {
  if (!fields.has("schema")) {
    return fail(ErrorKind::kInvalidInput,
                "config.json names no schema: it was not written by this agent-vm");
  }
  const std::uint64_t schema = TRY(fields.number("schema", kAny));
  if (schema > kSchema) {
    return fail(ErrorKind::kInvalidInput,
                "config.json was written by a newer agent-vm (schema {}; this one knows {})",
                schema, kSchema);
  }
  if (schema < kSchema) {
    return fail(ErrorKind::kInvalidInput, "config.json has the schema {}, which never existed",
                schema);
  }
  return {};
}

Result<std::uint16_t> read_port(JsonFields& fields, const std::string& key) {
  return static_cast<std::uint16_t>(TRY(fields.number(key, 65535)));
}

Status read_identity(JsonFields& fields, VmConfig& config) {
  config.name = TRY(fields.text("vm_name"));
  config.branch = TRY(fields.text("branch"));
  config.created_at = TRY(fields.text("created_at"));
  config.host = TRY(fields.text("host"));
  config.bind_address = TRY(fields.text("bind_address"));
  config.port = TRY(read_port(fields, "port"));
  config.ssh_port = TRY(read_port(fields, "ssh_port"));
  config.workspace_path = TRY(fields.text("workspace_path"));
  config.ssh_key_path = TRY(fields.text("ssh_key_path"));
  config.source_repo = TRY(fields.text("source_repo"));
  config.origin_repo = TRY(fields.text("origin_repo"));
  config.upstream_repo = TRY(fields.text("upstream_repo"));
  return {};
}

Status read_machine(JsonFields& fields, VmConfig& config) {
  config.memory_bytes = TRY(fields.number("memory_bytes", kAny));
  config.cpus = static_cast<unsigned>(TRY(fields.number("cpus", VmConfig::kMaxCpus)));
  config.disk_bytes = TRY(fields.number("disk_bytes", kAny));
  const std::string accel = TRY(fields.text("accel"));
  config.accel = TRY(parse_accel(accel));
  config.explicit_settings = TRY(fields.texts("explicit"));
  JsonFields image = TRY(fields.object("image"));
  config.image.variant = TRY(image.text("variant"));
  config.image.packages = TRY(image.texts("packages"));
  config.image.npm = TRY(image.texts("npm"));
  return image.no_others();
}

Status read_network(JsonFields& fields, NetworkPolicy& policy) {
  JsonFields network = TRY(fields.object("network"));
  const std::string mode = TRY(network.text("mode"));
  policy.mode = TRY(parse_network_mode(mode));
  // Absent in a configuration from before there was a way out.
  for (const auto& [key, list] :
       {std::pair{"allow", &policy.allow}, std::pair{"deny", &policy.deny},
        std::pair{"owner_allow", &policy.owner_allow},
        std::pair{"owner_deny", &policy.owner_deny}}) {
    *list = network.has(key) ? TRY(network.texts(key)) : std::vector<std::string>();
  }
  return network.no_others();
}

Status read_services(JsonFields& fields, VmConfig& config) {
  JsonFields mcp = TRY(fields.object("mcp"));
  config.default_mcp_server = TRY(mcp.text("default_server"));
  config.allowed_origins = TRY(mcp.texts("allowed_origins"));
  JsonFields servers = TRY(mcp.object("servers"));
  for (const auto& name : servers.keys()) {
    JsonFields one = TRY(servers.object(name));
    McpServer& server = config.mcp_servers[name];
    server.argv = TRY(one.texts("argv"));
    server.environment = TRY(one.text_map("env"));
    server.working_directory = TRY(one.text("cwd"));
    TRY(one.no_others());
  }
  TRY(mcp.no_others());
  config.sudo = TRY(fields.boolean("sudo"));
  return read_network(fields, config.network);
}

}  // namespace

std::string to_json_text(const VmConfig& config) {
  ordered_json servers = ordered_json::object();
  for (const auto& [name, server] : config.mcp_servers) {
    servers[name] = {
        {"argv", server.argv}, {"env", server.environment}, {"cwd", server.working_directory}};
  }
  const ordered_json root = {
      {"schema", kSchema},
      {"vm_name", config.name},
      {"branch", config.branch},
      {"created_at", config.created_at},
      {"host", config.host},
      {"bind_address", config.bind_address},
      {"port", config.port},
      {"ssh_port", config.ssh_port},
      {"workspace_path", config.workspace_path},
      {"ssh_key_path", config.ssh_key_path},
      {"source_repo", config.source_repo},
      {"origin_repo", config.origin_repo},
      {"upstream_repo", config.upstream_repo},
      {"memory_bytes", config.memory_bytes},
      {"cpus", config.cpus},
      {"disk_bytes", config.disk_bytes},
      {"accel", to_string(config.accel)},
      {"explicit", config.explicit_settings},
      {"image",
       {{"variant", config.image.variant},
        {"packages", config.image.packages},
        {"npm", config.image.npm}}},
      {"mcp",
       {{"default_server", config.default_mcp_server},
        {"allowed_origins", config.allowed_origins},
        {"servers", servers}}},
      {"sudo", config.sudo},
      {"network",
       {{"mode", to_string(config.network.mode)},
        {"allow", config.network.allow},
        {"deny", config.network.deny},
        {"owner_allow", config.network.owner_allow},
        {"owner_deny", config.network.owner_deny}}},
  };
  // A path that is not UTF-8 must not make this throw: validate() has refused it where it matters.
  return root.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

Result<VmConfig> parse_vm_config(std::string_view json_text) {
  const nlohmann::json root = TRY(parse_json(json_text, "config.json"));
  JsonFields fields = TRY(JsonFields::of(root, "config.json"));
  TRY(check_schema(fields));
  VmConfig config;
  TRY(read_identity(fields, config));
  TRY(read_machine(fields, config));
  TRY(read_services(fields, config));
  TRY(fields.no_others());
  TRY_CONTEXT(validate(config), "config.json");
  return config;
}

}  // namespace agent_vm

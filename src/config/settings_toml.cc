// Reading Settings from TOML: every error names file, line and column, and an unknown key the
// nearest known one.
#include <toml++/toml.h>

#include <algorithm>

#include "base/text.h"
#include "config/names.h"
#include "config/settings.h"

namespace agent_vm {
namespace {

class Reader {
 public:
  Reader(const toml::table& table, std::string file, std::string section)
      : table_(&table), file_(std::move(file)), section_(std::move(section)) {}

  // The node of a key; null when it is not set. The key counts as known either way.
  const toml::node* find(std::string_view key) {
    known_.emplace_back(key);
    return table_->get(key);
  }

  tl::unexpected<Error> refuse(const toml::node& node, std::string_view why) const {
    const auto& at = node.source().begin;
    return tl::unexpected(Error(ErrorKind::kInvalidInput,
                                fmt::format("{}:{}:{}: {}", file_, at.line, at.column, why)));
  }
  // Adds the place to the error of a check of a value.
  tl::unexpected<Error> refuse(const toml::node& node, const Error& error) const {
    return refuse(node, error.message());
  }
  std::string name(std::string_view key) const {
    return section_.empty() ? fmt::format("'{}'", key) : fmt::format("'{}.{}'", section_, key);
  }

  Result<std::optional<std::string>> text(std::string_view key) {
    const toml::node* node = find(key);
    if (node == nullptr) return std::nullopt;
    if (const auto* value = node->as_string()) return value->get();
    return refuse(*node, name(key) + " must be a string");
  }
  Result<std::optional<bool>> boolean(std::string_view key) {
    const toml::node* node = find(key);
    if (node == nullptr) return std::nullopt;
    if (const auto* value = node->as_boolean()) return value->get();
    return refuse(*node, name(key) + " must be true or false");
  }
  // "2G", or a number of bytes.
  Result<std::optional<std::uint64_t>> size(std::string_view key) {
    const toml::node* node = find(key);
    if (node == nullptr) return std::nullopt;
    if (const auto* number = node->as_integer(); number != nullptr && number->get() >= 0) {
      return static_cast<std::uint64_t>(number->get());
    }
    const auto* value = node->as_string();
    if (value == nullptr) return refuse(*node, name(key) + R"( must be a size, such as "2G")");
    const auto bytes = parse_size(value->get());
    if (!bytes) return refuse(*node, bytes.error());
    return *bytes;
  }
  Result<std::optional<std::vector<std::string>>> texts(
      std::string_view key, const std::function<Status(std::string_view)>& check) {
    const toml::node* node = find(key);
    if (node == nullptr) return std::nullopt;
    const auto* array = node->as_array();
    if (array == nullptr) return refuse(*node, name(key) + " must be a list of strings");
    std::vector<std::string> values;
    for (const auto& item : *array) {
      const auto* value = item.as_string();
      if (value == nullptr) return refuse(item, name(key) + " must hold strings only");
      if (check) {
        if (const auto ok = check(value->get()); !ok) return refuse(item, ok.error());
      }
      values.push_back(value->get());
    }
    return values;
  }
  // A table, read by `read`.
  Status section(std::string_view key, const std::function<Status(Reader&)>& read) {
    const toml::node* node = find(key);
    if (node == nullptr) return {};
    const auto* table = node->as_table();
    if (table == nullptr) return refuse(*node, name(key) + " must be a table");
    Reader inner(*table, file_,
                 section_.empty() ? std::string(key) : fmt::format("{}.{}", section_, key));
    TRY(read(inner));
    return inner.no_others();
  }

  const toml::table& table() const { return *table_; }

  Status no_others() const {
    for (const auto& [key, node] : *table_) {
      if (std::ranges::find(known_, key.str()) != known_.end()) continue;
      const auto near = nearest(key.str(), known_);
      const auto& at = key.source().begin;
      return fail(ErrorKind::kInvalidInput, "{}:{}:{}: unknown key {}{}", file_, at.line, at.column,
                  name(escape_line(key.str())),
                  near ? fmt::format("; did you mean '{}'?", *near)
                       : fmt::format("; known here: {}", join(known_, ", ")));
    }
    return {};
  }

 private:
  const toml::table* table_;
  std::string file_;
  std::string section_;  // "mcp.servers.fs"; empty at the top
  std::vector<std::string> known_;
};

Status read_vm(Reader& vm, Settings& settings, SettingsOwner owner) {
  settings.memory_bytes = TRY(vm.size("memory"));
  settings.disk_bytes = TRY(vm.size("disk"));
  if (const toml::node* node = vm.find("cpus")) {
    const auto* number = node->as_integer();
    if (number == nullptr || number->get() < 1 || number->get() > VmConfig::kMaxCpus) {
      return vm.refuse(*node, fmt::format("'vm.cpus' must be a number from 1 to {}",
                                          static_cast<unsigned>(VmConfig::kMaxCpus)));
    }
    settings.cpus = static_cast<unsigned>(number->get());
  }
  if (const auto text = TRY(vm.text("accel"))) {
    const auto accel = parse_accel(*text);
    if (!accel) return vm.refuse(*vm.find("accel"), accel.error());
    settings.accel = *accel;
  }
  settings.sudo = TRY(vm.boolean("sudo"));
  if (settings.sudo && owner == SettingsOwner::kRepository) {
    return vm.refuse(*vm.find("sudo"),
                     "'vm.sudo' can be set only in the owner's own configuration, "
                     "~/.config/agent-vm/config.toml");
  }
  return {};
}

Status read_image(Reader& image, Settings& settings) {
  settings.image_variant = TRY(image.text("variant"));
  const auto packages = TRY(image.texts("packages", valid_package_name));
  settings.packages = packages.value_or(std::vector<std::string>());
  const auto npm = TRY(image.texts("npm", valid_npm_spec));
  settings.npm = npm.value_or(std::vector<std::string>());
  return {};
}

Status read_server(Reader& reader, const std::string& name, Settings& settings) {
  McpServer& server = settings.mcp_servers[name];
  const toml::node* command = reader.find("command");
  if (command == nullptr) {
    return reader.refuse(reader.table(), fmt::format("MCP server '{}' has no 'command'", name));
  }
  server.argv = TRY(reader.texts("command", nullptr)).value_or(std::vector<std::string>());
  if (server.argv.empty() || server.argv[0].empty()) {
    return reader.refuse(*command, fmt::format("the command of MCP server '{}' is empty", name));
  }
  const auto directory = TRY(reader.text("cwd"));
  server.working_directory = directory.value_or("");
  if (directory && !directory->starts_with('/')) {
    return reader.refuse(*reader.find("cwd"), "'cwd' must be an absolute path in the guest");
  }
  return reader.section("env", [&](Reader& variables) -> Status {
    for (const auto& [key, node] : variables.table()) {
      const std::string variable(key.str());
      if (const auto ok = valid_environment_name(variable); !ok) {
        return variables.refuse(node, ok.error());
      }
      const auto value = TRY(variables.text(variable));
      server.environment[variable] = *value;
    }
    return {};
  });
}

Status read_mcp(Reader& mcp, Settings& settings) {
  settings.default_mcp_server = TRY(mcp.text("default"));
  settings.allowed_origins = TRY(mcp.texts("allowed_origins", valid_origin));
  return mcp.section("servers", [&](Reader& servers) -> Status {
    for (const auto& [key, node] : servers.table()) {
      const std::string name(key.str());
      if (const auto ok = valid_mcp_server_name(name); !ok) return servers.refuse(node, ok.error());
      if (name == "workspace") {
        return servers.refuse(node, "'workspace' is the built-in MCP server; choose another name");
      }
      TRY(servers.section(name, [&](Reader& one) { return read_server(one, name, settings); }));
    }
    return {};
  });
}

Status valid_repository_entry(std::string_view text) {
  TRY(valid_network_entry(text));
  if (text.starts_with('@') || TRY(parse_network_rule(text)).range.empty()) return {};
  return fail(ErrorKind::kInvalidInput,
              "a private range can be opened only in the owner's own configuration, "
              "~/.config/agent-vm/config.toml, or by: agent-vm net allow");
}

Status read_network(Reader& network, Settings& settings, SettingsOwner owner) {
  if (const auto text = TRY(network.text("mode"))) {
    const auto mode = parse_network_mode(*text);
    if (!mode) return network.refuse(*network.find("mode"), mode.error());
    settings.network_mode = *mode;
  }
  settings.network_defaults = TRY(network.boolean("defaults")).value_or(true);
  const auto check =
      owner == SettingsOwner::kRepository ? valid_repository_entry : valid_network_entry;
  const auto allow = TRY(network.texts("allow", check));
  settings.network_allow = allow.value_or(std::vector<std::string>());
  const auto deny = TRY(network.texts("deny", valid_network_entry));
  settings.network_deny = deny.value_or(std::vector<std::string>());
  return {};
}

Status read_secret(Reader& reader, const std::string& name, SecretSource& secret) {
  secret.environment = TRY(reader.text("env")).value_or("");
  secret.file = TRY(reader.text("file")).value_or("");
  secret.command = TRY(reader.texts("command", nullptr)).value_or(std::vector<std::string>());
  secret.hosts = TRY(reader.texts("hosts", nullptr)).value_or(std::vector<std::string>());
  secret.header = TRY(reader.text("header")).value_or(secret.header);
  if (const auto ok = validate_secret(name, secret); !ok)
    return reader.refuse(reader.table(), ok.error());
  return {};
}

Status read_secrets(Reader& secrets, Settings& settings, SettingsOwner owner) {
  if (owner == SettingsOwner::kRepository) {
    return secrets.refuse(secrets.table(),
                          "'secrets' can be set only in the owner's own configuration, "
                          "~/.config/agent-vm/config.toml");
  }
  for (const auto& [key, node] : secrets.table()) {
    const std::string name(key.str());
    TRY(secrets.section(
        name, [&](Reader& one) { return read_secret(one, name, settings.secrets[name]); }));
  }
  return {};
}

}  // namespace

Result<Settings> parse_settings(std::string_view text, const std::string& where,
                                SettingsOwner owner) {
  toml::table root;
  try {
    root = toml::parse(text);
  } catch (const toml::parse_error& error) {
    const auto& at = error.source().begin;
    return fail(ErrorKind::kInvalidInput, "{}:{}:{}: not TOML: {}", where, at.line, at.column,
                escape_line(error.description()));
  }
  Settings settings;
  Reader reader(root, where, "");
  TRY(reader.section("vm", [&](Reader& vm) { return read_vm(vm, settings, owner); }));
  TRY(reader.section("image", [&](Reader& image) { return read_image(image, settings); }));
  TRY(reader.section("mcp", [&](Reader& mcp) { return read_mcp(mcp, settings); }));
  TRY(reader.section("network", [&](Reader& net) { return read_network(net, settings, owner); }));
  TRY(reader.section("secrets", [&](Reader& s) { return read_secrets(s, settings, owner); }));
  TRY(reader.no_others());
  return settings;
}

}  // namespace agent_vm

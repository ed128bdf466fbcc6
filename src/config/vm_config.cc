#include "config/vm_config.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/text.h"
#include "config/names.h"

namespace agent_vm {
namespace {

constexpr std::array<std::pair<Accel, std::string_view>, 3> kAccels{
    {{Accel::kAuto, "auto"}, {Accel::kKvm, "kvm"}, {Accel::kTcg, "tcg"}}};

bool is_plain_line(std::string_view text) {
  return escape_line(text) == text;
}

Status valid_path(std::string_view path, std::string_view what) {
  if (path.starts_with('/') && path.find('\0') == std::string_view::npos) return {};
  return fail(ErrorKind::kInvalidInput, "the {} '{}' is not an absolute path", what,
              escape_line(path));
}

Status valid_resources(const VmConfig& config) {
  if (config.memory_bytes < VmConfig::kMinMemory) {
    return fail(ErrorKind::kInvalidInput, "memory {} is too small: a VM needs at least {}",
                format_size(config.memory_bytes), format_size(VmConfig::kMinMemory));
  }
  if (config.disk_bytes < VmConfig::kMinDisk || config.disk_bytes > VmConfig::kMaxDisk) {
    return fail(ErrorKind::kInvalidInput, "disk {} is not between {} and {}",
                format_size(config.disk_bytes), format_size(VmConfig::kMinDisk),
                format_size(VmConfig::kMaxDisk));
  }
  if (config.cpus < 1 || config.cpus > VmConfig::kMaxCpus) {
    return fail(ErrorKind::kInvalidInput, "cpus {} is not between 1 and {}", config.cpus,
                VmConfig::kMaxCpus);
  }
  return {};
}

Status valid_server(const std::string& name, const McpServer& server) {
  TRY(valid_mcp_server_name(name));
  if (name == "workspace") {
    return fail(ErrorKind::kInvalidInput,
                "an MCP server cannot be called 'workspace': that is the built-in one");
  }
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorKind::kInvalidInput, "MCP server '{}': {}", name, why);
  };
  if (server.argv.empty() || server.argv[0].empty()) return refuse("its command is empty");
  for (const auto& argument : server.argv) {
    if (argument.find('\0') != std::string::npos) return refuse("its command contains a NUL byte");
  }
  for (const auto& [variable, value] : server.environment) {
    TRY_CONTEXT(valid_environment_name(variable), "MCP server '{}'", name);
    if (value.find('\0') != std::string::npos) return refuse("a variable contains a NUL byte");
  }
  if (!server.working_directory.empty()) {
    TRY_CONTEXT(valid_path(server.working_directory, "cwd"), "MCP server '{}'", name);
  }
  return {};
}

Status valid_mcp(const VmConfig& config) {
  for (const auto& [name, server] : config.mcp_servers) TRY(valid_server(name, server));
  if (config.default_mcp_server != "workspace" &&
      !config.mcp_servers.contains(config.default_mcp_server)) {
    return fail(ErrorKind::kInvalidInput, "the default MCP server '{}' is not configured",
                escape_line(config.default_mcp_server));
  }
  for (const auto& origin : config.allowed_origins) TRY(valid_origin(origin));
  return {};
}

}  // namespace

std::string_view to_string(Accel accel) {
  return std::ranges::find(kAccels, accel, &decltype(kAccels)::value_type::first)->second;
}

Result<Accel> parse_accel(std::string_view text) {
  for (const auto& [accel, name] : kAccels) {
    if (name == text) return accel;
  }
  return fail(ErrorKind::kInvalidInput, "accel '{}' is not one of auto, kvm and tcg",
              escape_line(text));
}

std::string mcp_server_setting(std::string_view name) {
  return fmt::format("mcp_server.{}", name);
}

std::string mcp_endpoint(const VmConfig& config) {
  const bool ipv6 = config.host.find(':') != std::string::npos;
  return fmt::format("http://{}:{}/mcp", ipv6 ? "[" + config.host + "]" : config.host, config.port);
}

Status validate(const VmConfig& config) {
  TRY(valid_vm_name(config.name));
  if (config.branch.empty() || !is_plain_line(config.branch)) {
    return fail(ErrorKind::kInvalidInput, "'{}' is not the name of a branch",
                escape_line(config.branch));
  }
  if (config.host.empty() || !is_plain_line(config.host)) {
    return fail(ErrorKind::kInvalidInput, "'{}' is not a host", escape_line(config.host));
  }
  if (config.port == 0 || config.ssh_port == 0) {
    return fail(ErrorKind::kInvalidInput, "a port is 0; ports go from 1 to 65535");
  }
  if (config.port == config.ssh_port) {
    return fail(ErrorKind::kInvalidInput, "port {} cannot serve both MCP and SSH", config.port);
  }
  TRY(valid_path(config.workspace_path, "workspace"));
  TRY(valid_path(config.ssh_key_path, "SSH key"));
  TRY(valid_path(config.source_repo, "source repository"));
  TRY(valid_resources(config));
  TRY(valid_image_variant(config.image.variant));
  for (const auto& package : config.image.packages) TRY(valid_package_name(package));
  for (const auto& spec : config.image.npm) TRY(valid_npm_spec(spec));
  TRY(validate(config.network));
  return valid_mcp(config);
}

Result<HostResources> HostResources::detect() {
  HostResources host;
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page_size = ::sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_size <= 0) return fail_errno(errno, "cannot find out the host's memory");
  host.memory_bytes = static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page_size);
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) {
    return fail_errno(errno, "cannot find out the host's cpus");
  }
  host.cpus = static_cast<unsigned>(std::max(CPU_COUNT(&set), 1));
  return host;
}

unsigned HostResources::default_cpus() const {
  return std::clamp(cpus / 2, 1U, 4U);
}

Status validate_for_host(const VmConfig& config, const HostResources& host) {
  if (config.memory_bytes > host.memory_bytes) {
    return fail(ErrorKind::kInvalidInput, "memory {} is more than this machine has ({})",
                format_size(config.memory_bytes), format_size(host.memory_bytes));
  }
  if (config.cpus > host.cpus) {
    return fail(ErrorKind::kInvalidInput, "cpus {} is more than this machine has ({})", config.cpus,
                host.cpus);
  }
  return {};
}

}  // namespace agent_vm

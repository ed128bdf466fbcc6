// What was asked for when a VM was made: the content of its config.json. A plain value that has
// been validated; code passes it as const and changes it only by making another one (`update`).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/network_policy.h"

namespace agent_vm {

enum class Accel { kAuto, kKvm, kTcg };
std::string_view to_string(Accel accel);  // "auto", "kvm", "tcg"
Result<Accel> parse_accel(std::string_view text);

// What the image holds besides the base system.
struct ImageChoice {
  std::string variant = "default";    // or others, joined by '+'
  std::vector<std::string> packages;  // Debian package names
  std::vector<std::string> npm;       // npm specs, such as "typescript" or "@scope/name@1.2.3"

  bool operator==(const ImageChoice&) const = default;
};

// A stdio MCP server that the gateway runs in the guest.
struct McpServer {
  std::vector<std::string> argv;                   // argv[0] is looked up in the guest's PATH
  std::map<std::string, std::string> environment;  // added to the service's own
  std::string working_directory;                   // in the guest; empty: /workspace

  bool operator==(const McpServer&) const = default;
};

struct VmConfig {
  // Bytes; the numbers of cpus, memory and disk are checked against these and against the host.
  static constexpr std::uint64_t kMinMemory = 256ULL << 20;
  static constexpr std::uint64_t kDefaultMemory = 2ULL << 30;
  static constexpr std::uint64_t kMinDisk = 2ULL << 30;
  static constexpr std::uint64_t kMaxDisk = 16ULL << 40;  // the limit of ext4 with 4 KiB blocks
  static constexpr std::uint64_t kDefaultDisk = 20ULL << 30;
  static constexpr unsigned kMaxCpus = 255;  // of q35 without an interrupt-remapping IOMMU

  std::string name;        // also the name of its directory; see valid_vm_name()
  std::string branch;      // checked out in the workspace
  std::string created_at;  // UTC, "2026-01-31T12:00:00Z"

  std::string host = "127.0.0.1";          // as the user named it; printed in the MCP endpoint
  std::string bind_address = "127.0.0.1";  // the numeric address that `host` meant at create
  std::uint16_t port = 0;                  // MCP, on `bind_address`
  std::uint16_t ssh_port = 0;              // SSH, on `bind_address`

  std::string workspace_path;  // absolute
  std::string ssh_key_path;    // absolute, the private key
  std::string source_repo;     // absolute: the top of the user's working tree
  std::string origin_repo;     // URL without credentials; empty when the source has no `origin`
  std::string upstream_repo;   // the same of `upstream`

  std::uint64_t memory_bytes = kDefaultMemory;
  unsigned cpus = 1;
  std::uint64_t disk_bytes = kDefaultDisk;
  Accel accel = Accel::kAuto;
  // Which of memory, cpus, disk, accel, image_variant, allowed_origins and network_mode were named
  // on the command line: `update` lets no file override those.
  std::vector<std::string> explicit_settings;  // and mcp_server_setting() of those added by hand

  ImageChoice image;

  std::map<std::string, McpServer> mcp_servers;  // besides the built-in "workspace"
  std::string default_mcp_server = "workspace";  // the one that /mcp is
  std::vector<std::string> allowed_origins = {"https://claude.ai"};
  bool sudo = false;  // whether `dev` may become root in the guest

  NetworkPolicy network;

  bool operator==(const VmConfig&) const = default;
};

// "http://127.0.0.1:8000/mcp", with the address as it was named.
std::string mcp_endpoint(const VmConfig& config);

// Everything that can be said about a configuration without looking at the host.
Status validate(const VmConfig& config);

// What the host can give to one VM.
struct HostResources {
  std::uint64_t memory_bytes = 0;
  unsigned cpus = 1;

  // Of this machine; the cpus that this process may run on.
  static Result<HostResources> detect();
  // Half of the cpus, at least one and at most four: an agent's build should not starve its owner.
  unsigned default_cpus() const;
};
// Refuses what the host does not have.
Status validate_for_host(const VmConfig& config, const HostResources& host);

// config.json. Refuses a schema that it does not know, unknown keys and values of the wrong type;
// the result has passed validate().
std::string to_json_text(const VmConfig& config);
Result<VmConfig> parse_vm_config(std::string_view json_text);

// How an MCP server that was added on the command line is named in `explicit_settings`.
std::string mcp_server_setting(std::string_view name);

}  // namespace agent_vm

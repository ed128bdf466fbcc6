// The gateway's configuration: one JSON file that the host writes into the guest at every start.
// docs/gateway.md describes it for people; this is the list of what it can say.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "http/access.h"

namespace agent_vm::gateway {

struct StdioServerConfig {
  std::vector<std::string> command;
  std::map<std::string, std::string> environment;  // added to the service's own
  std::string cwd;                                 // empty: the workspace's root
  bool operator==(const StdioServerConfig&) const = default;
};

struct Limits {
  std::size_t max_body_bytes = 32U << 20;  // of a request
  std::size_t max_line_bytes = 32U << 20;  // of a server's message
  std::size_t max_sessions = 256;
  std::size_t max_processes = 16;  // of one server, before unused ones are stopped
  std::size_t max_connections = 512;
  std::chrono::seconds idle_timeout{1800};  // then an unused session's server is stopped
  std::chrono::seconds client_timeout{60};  // for a body, and for each piece that we write
  std::chrono::seconds start_timeout{60};   // for a server's handshake, and for requests held
};

struct Config {
  std::string address = "0.0.0.0";
  std::uint16_t port = 8000;
  std::string token_file;
  http::OriginPolicy origins;
  http::HostPolicy hosts;
  std::string default_server = "workspace";
  std::string workspace_root = "/workspace";
  std::map<std::string, StdioServerConfig> servers;
  // Empty: the service manager's STATE_DIRECTORY, and without that sessions end with the gateway.
  std::string state_directory;
  Limits limits;
};

inline constexpr std::string_view kWorkspaceServer = "workspace";

// Names the key, the value and the nearest known key in its errors.
Result<Config> parse_config(std::string_view json);
Result<Config> load_config(const std::string& path);

// The token's first line. Refuses a file that others than its owner and group may read, that
// group or others may write, and a token shorter than 16 bytes or with other than visible ASCII.
Result<std::string> load_token(const std::string& path);

}  // namespace agent_vm::gateway

// The identity step, as the guest sees it: what makes a freshly booted (or resumed) guest into one
// particular VM. The host sends this document through the guest agent; the program applies it and
// answers with what it did. Nothing of it is in the image or on the kernel's command line.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace agent_vm {

// Contents of the guest's settings of apt, npm and pip.
struct PackageSettings {
  std::string apt_sources;
  std::string apt_settings;
  std::string npm;
  std::string pip;
};

struct Identity {
  std::string hostname;
  std::string machine_id;   // 32 hexadecimal digits
  std::string mac_address;  // of eth0
  std::string address;      // of eth0, numeric IPv4
  int prefix = 24;
  std::string gateway;
  std::int64_t clock_ns = 0;  // the host's CLOCK_REALTIME at sending
  std::string entropy;        // random bytes for the kernel's pool
  std::string ssh_host_key;   // private, OpenSSH format
  std::string ssh_host_key_public;
  std::string authorized_key;  // one line, the owner's
  std::string mcp_config;      // content of /etc/agent-vm/mcp.json
  std::string mcp_token;
  std::string authority;       // PEM certificate of the VM's CA, which the guest trusts
  std::string authority_hash;  // its OpenSSL subject hash
  PackageSettings packages;    // where packages come from
  std::map<std::string, std::string> placeholders;  // of secrets that the proxy puts in
  bool sudo = false;                                // whether `dev` may become root
  std::string disk_serial;         // of the block device that keeps what the guest changes
  std::string share_tag;           // virtiofs tag to mount on /workspace
  std::vector<std::string> units;  // started at the end, in one transaction
};

// Refuses unknown or missing members and values of the wrong type.
Result<Identity> parse_identity(std::string_view json_text);

struct StepReport {
  std::string name;
  double milliseconds = 0;
};
struct IdentityReport {
  std::vector<StepReport> steps;  // those that succeeded, in order
  std::string failed_step;        // empty when all did
  std::string error;
  std::vector<std::string> evidence;
};
nlohmann::json to_json(const IdentityReport& report);

using Steps = std::vector<std::pair<const char*, std::function<Status()>>>;
// Stops at the first step that fails.
IdentityReport run_steps(const Steps& steps);

// Needs root in the guest, as all of these.
IdentityReport apply_identity(const Identity& identity);

// For a guest that was saved with an identity and goes on: with its own, or with another's.
IdentityReport wake(const Identity& identity);
// For one that was to be saved and goes on at once: what is connected to it stays.
IdentityReport go_on(const Identity& identity);
IdentityReport become(const Identity& identity);

// For a guest that is to become a template: waits for the end of the boot, and brings into memory
// what apply_identity() will need of the disk.
IdentityReport settle();

}  // namespace agent_vm

// run.json: there while a VM runs. It names the supervisor so exactly that a reused pid or a reboot
// cannot be mistaken for it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "config/vm_config.h"
#include "os/process_identity.h"

namespace agent_vm {

struct RunRecord {
  ProcessIdentity supervisor;
  std::string started_at;  // UTC, "2026-01-31T12:00:00Z"
  std::string bind_address;
  std::uint16_t port = 0;      // MCP, as bound
  std::uint16_t ssh_port = 0;  // SSH, as bound
  Accel accel = Accel::kTcg;   // what runs; never kAuto
  std::string image_key;

  // Whether the recorded supervisor is gone: killed, or from before a reboot (F1, F2, F3).
  bool is_stale() const { return !is_running(supervisor); }

  bool operator==(const RunRecord&) const = default;
};

std::string to_json_text(const RunRecord& record);
Result<RunRecord> parse_run_record(std::string_view json_text);

}  // namespace agent_vm

// What agent-vm and a VM's supervisor say to each other: JSON, one message per line, over the Unix
// socket control.sock in the VM's directory, and during start over an inherited socket pair.
//
//   client      {"request": "status" | "stop" | ..., more members by request}
//   supervisor  {"progress": {"step": "...", "text": "..."}}      any number
//               {"ok": true, "result": {...}}                     or
//               {"ok": false, "error": {"kind", "message", "hint", "evidence": [...]}}
//
// docs/control-protocol.md has all requests.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"

namespace agent_vm {

constexpr const char* kControlSocket = "control.sock";
// The MCP endpoint for clients that can use a Unix socket: while the VM runs, 0600.
constexpr const char* kMcpSocketFile = "mcp.sock";
// How the last run ended, written by the supervisor at its end: {"schema": 1, "ended_at",
// "crashed", "reason", "evidence"}. Absent after a supervisor that was killed.
constexpr const char* kLastRunFile = "last-run.json";
// The progress of a start that says that the guest answers and gets its identity now.
constexpr const char* kIdentityStep = "identity";
// One line: evidence of 100 lines and a status with room to spare.
constexpr std::size_t kMaxControlLine = 1U << 20U;

nlohmann::json error_to_json(const Error& error);
Error error_from_json(const nlohmann::json& value);

nlohmann::json progress_message(const std::string& step, const std::string& text);
nlohmann::json result_message(const nlohmann::json& result);
nlohmann::json error_message(const Error& error);

}  // namespace agent_vm

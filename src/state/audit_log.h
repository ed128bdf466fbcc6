// The record of every request that a VM made: audit/network.jsonl, one JSON object a line.
//
// Each line ends in `"chain"`: the hash of the line before (its chain) and of this line without it.
// So a line that was changed, removed or put in shows. The last chain is kept in a file of its own,
// audit/head.json, so that lines missing at the end show too. The files are the supervisor's: the
// proxy, which the guest can talk to, only sends records.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace agent_vm {

inline constexpr const char* kAuditFolder = "audit";
inline constexpr const char* kAuditFile = "network.jsonl";
// Older files: network.jsonl.1, the newest of them, to .4.
inline constexpr int kAuditOlderFiles = 4;
inline constexpr std::size_t kAuditFileBytes = 8U << 20U;

class AuditLog {
 public:
  // Continues what is in the VM's directory `dir`.
  static Result<AuditLog> open(int dir, std::string vm_name,
                               std::size_t file_bytes = kAuditFileBytes);

  // Adds seq, time and vm in front of `record`, an object of plain values; whatever else is in it,
  // or would take those names, is left out.
  Status append(const nlohmann::json& record);

 private:
  AuditLog() = default;
  Status open_file();
  Status rotate();

  std::string vm_name_;
  std::size_t file_bytes_ = 0;
  Fd folder_;
  Fd file_;
  Fd head_;
  std::size_t size_ = 0;
  std::uint64_t sequence_ = 0;
  std::string chain_;
};

struct AuditReport {
  std::uint64_t lines = 0;
  std::string problem;  // empty: every line that is kept follows from the one before
};
// Checks the chain through all files that are kept.
Result<AuditReport> verify_audit_log(int dir);

}  // namespace agent_vm

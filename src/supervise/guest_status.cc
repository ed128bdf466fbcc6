#include "supervise/guest_status.h"

#include <unistd.h>

#include <map>

#include "base/text.h"
#include "os/files.h"

namespace agent_vm {

using nlohmann::json;

namespace {

// One script, because each program that the agent starts costs a round trip. git runs as `dev`,
// whose repository it is, and here, in the guest, whose configuration it obeys (S10).
constexpr const char* kScript = R"sh(
systemctl show agent-mcp.service --property=ActiveState,SubState,Result,MainPID,NRestarts,MemoryCurrent
if grep -q ' /workspace virtiofs ' /proc/mounts; then echo Workspace=mounted; else echo Workspace=missing; fi
cd /workspace && timeout 8 runuser -u dev -- git status --porcelain=v2 --branch 2>&1 | head -n 2000 | awk '
  /^# branch.head / { print "GitBranch=" $3; next }
  /^# branch.oid /  { print "GitCommit=" $3; next }
  /^#/ { next }
  /^\?/ { untracked++; next }
  /^[12u] / { changed++; next }
  { print "GitError=" $0 }
  END { print "GitChanged=" changed + 0; print "GitUntracked=" untracked + 0 }'
)sh";

std::map<std::string, std::string> parse_properties(std::string_view text) {
  std::map<std::string, std::string> properties;
  for (const auto& line : split_lines(text)) {
    const auto equals = line.find('=');
    // The guest may print anything; take the first of each and short ones.
    if (equals == std::string::npos || line.size() > 500) continue;
    properties.emplace(line.substr(0, equals), escape_line(line.substr(equals + 1)));
  }
  return properties;
}

json number_or_null(const std::map<std::string, std::string>& properties, const char* name) {
  const auto found = properties.find(name);
  if (found == properties.end()) return nullptr;
  const auto value = parse_unsigned(found->second);
  // systemd prints the largest number for "not known".
  return value && *value != UINT64_MAX ? json(*value) : json(nullptr);
}

json text_or_null(const std::map<std::string, std::string>& properties, const char* name) {
  const auto found = properties.find(name);
  return found == properties.end() ? json(nullptr) : json(found->second);
}

}  // namespace

json process_figures(pid_t pid) {
  json figures = {{"pid", pid}};
  if (const auto stat = read_file(fmt::format("/proc/{}/stat", pid), 4096)) {
    const auto fields = split(trim(std::string_view(*stat).substr(stat->rfind(')') + 1)), ' ');
    constexpr std::size_t kUserTime = 11;
    if (fields.size() > kUserTime + 1) {
      const auto ticks = parse_unsigned(fields[kUserTime]).value_or(0) +
                         parse_unsigned(fields[kUserTime + 1]).value_or(0);
      figures["cpu_seconds"] =
          static_cast<double>(ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK));
    }
  }
  if (const auto statm = read_file(fmt::format("/proc/{}/statm", pid), 4096)) {
    const auto fields = split(trim(*statm), ' ');
    if (fields.size() > 1) {
      figures["rss_bytes"] = parse_unsigned(fields[1]).value_or(0) *
                             static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    }
  }
  return figures;
}

Task<json> ask_guest(GuestAgent& agent, Deadline deadline) {
  const auto answer = co_await agent.run_script(kScript, "", deadline);
  if (!answer) {
    json unreachable = {{"reachable", false}, {"error", answer.error().message()}};
    co_return unreachable;
  }
  const auto properties = parse_properties(answer->out);
  json service = {{"active", text_or_null(properties, "ActiveState") == "active"},
                  {"state", text_or_null(properties, "ActiveState")},
                  {"sub_state", text_or_null(properties, "SubState")},
                  {"result", text_or_null(properties, "Result")},
                  {"pid", number_or_null(properties, "MainPID")},
                  {"restarts", number_or_null(properties, "NRestarts")},
                  {"memory_bytes", number_or_null(properties, "MemoryCurrent")}};
  json workspace = {{"reachable", text_or_null(properties, "Workspace") == "mounted"},
                    {"branch", text_or_null(properties, "GitBranch")},
                    {"commit", text_or_null(properties, "GitCommit")},
                    {"changed", number_or_null(properties, "GitChanged")},
                    {"untracked", number_or_null(properties, "GitUntracked")},
                    {"error", text_or_null(properties, "GitError")}};
  json all = {
      {"reachable", true}, {"service", std::move(service)}, {"workspace", std::move(workspace)}};
  co_return all;
}

}  // namespace agent_vm

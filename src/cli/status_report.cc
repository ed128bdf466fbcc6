#include "cli/status_report.h"

#include "base/text.h"
#include "cli/exit_code.h"
#include "control/http_probe.h"
#include "control/protocol.h"
#include "launch/lifecycle.h"
#include "launch/shared_ssh_check.h"
#include "os/files.h"

namespace agent_vm {
namespace {

using json = nlohmann::ordered_json;
using std::chrono::milliseconds;

constexpr milliseconds kGuestPatience{10'000};
constexpr milliseconds kProbePatience{10'000};

struct Findings {
  // The guest's service and workspace have answered a moment ago, when the VM started.
  bool just_started = false;
  RunState run;
  std::optional<SshCheck> ssh;
  Result<HttpAnswer> endpoint = fail(ErrorKind::kNotRunning, "the VM does not run");
  std::uint64_t workspace_bytes = 0;
  bool has_workspace_bytes = false;

  bool running() const { return run.kind == RunState::Kind::kRunning; }
  nlohmann::json guest(const char* part) const {
    if (!run.supervisor.is_object()) return {};
    const auto all = run.supervisor.value("guest", nlohmann::json::object());
    return all.is_object() && all.contains(part) ? all[part] : nlohmann::json();
  }
  bool service_active() const {
    if (just_started) return true;
    const auto service = guest("service");
    return service.is_object() && service.value("active", false);
  }
  bool endpoint_healthy() const { return just_started || (endpoint && endpoint->status == 200); }
  bool workspace_reachable() const {
    if (just_started) return true;
    const auto workspace = guest("workspace");
    return workspace.is_object() && workspace.value("reachable", false);
  }
};

// Of a VM that has just been started: its supervisor's figures, and no more.
Result<Findings> look_at_started(const VmDirectory& vm, const SshCheck& ssh) {
  Findings found;
  found.run = TRY(query_run_state(vm, std::nullopt));
  found.just_started = found.running();
  found.ssh = ssh;
  return found;
}

Result<Findings> look(const VmDirectory& vm, const VmConfig& config,
                      const std::optional<SshCheck>& ssh, const Deadline& deadline) {
  Findings found;
  const auto patience = std::min<long long>(
      kGuestPatience.count(), deadline.is_never() ? kGuestPatience.count() : deadline.poll_ms());
  found.run = TRY(query_run_state(vm, milliseconds(patience)));
  if (const auto size = tree_size_at(vm.fd(), vm_files::kWorkspace)) {
    found.workspace_bytes = *size;
    found.has_workspace_bytes = true;
  }
  if (!found.running()) return found;
  const std::string token(trim(TRY(vm.read_small_file(vm_files::kMcpToken))));
  found.endpoint =
      http_get(config.bind_address, config.port, fmt::format("127.0.0.1:{}", config.port),
               "/health", token, deadline.sooner(kProbePatience));
  found.ssh = ssh ? *ssh : shared_ssh_check(vm, config, deadline.sooner(kProbePatience));
  return found;
}

json to_json(const Findings& found, const VmDirectory& vm, const VmConfig& config) {
  json object = {{"vm_name", vm.name()},
                 {"status", to_string(found.run.kind)},
                 {"reason", found.run.reason},
                 {"evidence", found.run.evidence},
                 {"branch", config.branch},
                 {"mcp_endpoint", mcp_endpoint(config)},
                 {"mcp_socket", vm.path() + "/" + kMcpSocketFile},
                 {"memory_bytes", config.memory_bytes},
                 {"cpus", config.cpus}};
  object["pid"] = found.run.record ? json(found.run.record->supervisor.pid) : json(nullptr);
  object["workspace"] = {
      {"path", config.workspace_path},
      {"bytes", found.has_workspace_bytes ? json(found.workspace_bytes) : json(nullptr)}};
  if (!found.running()) return object;
  object["started_at"] = found.run.record->started_at;
  for (const auto* name : {"uptime_seconds", "idle_seconds", "connections", "accelerator",
                           "network", "egress", "processes"}) {
    object[name] = found.run.supervisor.value(name, nlohmann::json());
  }
  object["hardware_isolation"] = found.run.supervisor.value("accelerator", "") == "kvm";
  object["ssh"] = {{"authenticated", found.ssh->authenticated},
                   {"port", config.ssh_port},
                   {"milliseconds", found.ssh->milliseconds},
                   {"failed_step", found.ssh->failed_step},
                   {"detail", found.ssh->detail}};
  object["agent_service"] = found.guest("service");
  if (found.just_started) {
    object["agent_service"] = {{"active", true}};
    object["workspace"]["reachable"] = true;
  }
  object["mcp"] = {
      {"healthy", found.endpoint_healthy()},
      {"milliseconds", found.endpoint ? json(found.endpoint->milliseconds) : json(nullptr)},
      {"error", found.endpoint || found.just_started ? "" : found.endpoint.error().message()}};
  const auto workspace = found.guest("workspace");
  if (workspace.is_object()) {
    for (const auto& [key, value] : workspace.items()) object["workspace"][key] = value;
  }
  return object;
}

void print_what_the_guest_says(Output& out, const Findings& found) {
  const auto service = found.guest("service");
  if (service.is_object()) {
    const auto number = [&](const char* name) {
      return service[name].is_number_unsigned() ? service[name].get<std::uint64_t>() : 0;
    };
    out.print("Service: pid {}, {} restarts, {}", number("pid"), number("restarts"),
              format_size(number("memory_bytes")));
  }
  if (found.endpoint_healthy())
    out.print("MCP health: answered in {:.0f} ms", found.endpoint->milliseconds);
  const auto workspace = found.guest("workspace");
  if (found.workspace_reachable()) {
    const auto text = [&](const char* name) {
      return workspace[name].is_string() ? workspace[name].get<std::string>() : "?";
    };
    const auto number = [&](const char* name) {
      return workspace[name].is_number_unsigned() ? workspace[name].get<std::uint64_t>() : 0;
    };
    out.print("Workspace: {}, branch {}, {} changed, {} untracked",
              format_size(found.workspace_bytes), escape_line(text("branch")), number("changed"),
              number("untracked"));
  } else {
    out.print("Workspace: not reachable in the guest");
  }
}

void print_details(Context& context, const Findings& found, const VmConfig& config) {
  Output& out = context.out;
  const auto& supervisor = found.run.supervisor;
  const auto qemu = supervisor.value("processes", nlohmann::json::object())
                        .value("qemu", nlohmann::json::object());
  out.print("Process: {} (QEMU {}), up {}", found.run.record->supervisor.pid, qemu.value("pid", 0),
            format_duration(supervisor.value("uptime_seconds", 0ULL)));
  out.print("CPU: {} cores, {:.0f} s used", config.cpus, qemu.value("cpu_seconds", 0.0));
  out.print("Memory: {} of {} resident", format_size(qemu.value("rss_bytes", 0ULL)),
            format_size(config.memory_bytes));
  if (found.ssh->authenticated && found.just_started) {
    // Its time would be that of the start.
    out.print("SSH: authenticated on port {}", config.ssh_port);
  } else if (found.ssh->authenticated) {
    out.print("SSH: authenticated on port {} in {:.0f} ms", config.ssh_port,
              found.ssh->milliseconds);
  } else {
    out.print("SSH: fails at '{}': {}", found.ssh->failed_step, escape_line(found.ssh->detail));
  }
  if (!found.just_started) print_what_the_guest_says(out, found);
  const bool kvm = supervisor.value("accelerator", "") == "kvm";
  out.print("Isolation: {}",
            kvm ? "hardware virtualization (KVM)" : "software emulation, NOT isolated by hardware");
  out.print("Network: {}", describe_network(supervisor));
  out.print("Idle: {}", format_duration(supervisor.value("idle_seconds", 0ULL)));
}

void print_lines(Context& context, const Findings& found, const VmConfig& config) {
  Output& out = context.out;
  const bool up = found.running();
  out.print("{}VM Status: {}", out.mark(up ? "🟢" : "🔴"), to_string(found.run.kind));
  if (!found.run.reason.empty() && !up) out.print("Reason: {}", escape_line(found.run.reason));
  for (const auto& line : found.run.evidence) out.print("  | {}", escape_line(line));
  if (!up) return;
  out.print("{}Agent Service: {}", out.mark(found.service_active() ? "🟢" : "🟡"),
            found.service_active() ? "Running" : "Not running");
  out.print("{}MCP Proxy: {}", out.mark(found.endpoint_healthy() ? "🟢" : "🟡"),
            found.endpoint_healthy() ? "Healthy" : "Not responding");
  out.print("MCP Endpoint: {}", mcp_endpoint(config));
  print_details(context, found, config);
}

Result<int> report(Context& context, const Findings& found, const VmDirectory& vm,
                   const VmConfig& config, nlohmann::ordered_json more) {
  auto object = to_json(found, vm, config);
  object.update(more);
  context.out.json(object);
  print_lines(context, found, config);
  if (!found.running()) return kExitNotRunning;
  const bool well = found.ssh->authenticated && found.service_active() &&
                    found.endpoint_healthy() && found.workspace_reachable();
  return well ? kExitOk : kExitUnhealthy;
}

}  // namespace

std::string describe_network(const nlohmann::json& supervisor) {
  std::string text = supervisor.value("network", "?");
  const auto egress = supervisor.value("egress", nlohmann::json::object());
  for (const auto* name : {"resolver", "uplink", "proxy"}) {
    const auto part = egress.value(name, nlohmann::json::object());
    if (part.value("running", true)) continue;
    text += fmt::format("; the {} does not run and is started again ({})", name,
                        part.value("last_end", ""));
  }
  if (!egress.value("git", nlohmann::json::object()).value("running", true))
    text += "; no git over SSH until the next start, because its broker has ended";
  return text;
}

Result<int> report_status(Context& context, const VmDirectory& vm,
                          const std::optional<SshCheck>& ssh) {
  const VmConfig config = TRY(vm.read_config());
  const Findings found = TRY(look(vm, config, ssh, TRY(context.deadline())));
  return report(context, found, vm, config, json::object());
}

Result<int> report_start(Context& context, const VmDirectory& vm, const StartOutcome& outcome,
                         bool with_profile) {
  if (outcome.already_running) return report_status(context, vm, outcome.ssh);
  const VmConfig config = TRY(vm.read_config());
  const Findings found = TRY(look_at_started(vm, outcome.ssh));
  json more = json::object();
  if (with_profile) more["profile"] = agent_vm::to_json(outcome.profile);
  return report(context, found, vm, config, std::move(more));
}

}  // namespace agent_vm

#include "supervise/mcp_reload.h"

#include "base/text.h"
#include "supervise/identity_document.h"

namespace agent_vm {
namespace {

// In one piece: the gateway must never read half of it.
constexpr const char* kScript =
    "set -e; umask 022; cat > /etc/agent-vm/mcp.json.new; "
    "mv /etc/agent-vm/mcp.json.new /etc/agent-vm/mcp.json; "
    "systemctl reload agent-mcp.service";

}  // namespace

VmConfig reloadable(const VmConfig& running, const VmConfig& now) {
  VmConfig config = running;
  config.mcp_servers = now.mcp_servers;
  config.default_mcp_server = now.default_mcp_server;
  config.allowed_origins = now.allowed_origins;
  return config;
}

Task<Status> reload_mcp(GuestAgent& agent, VmConfig config, Deadline deadline) {
  const std::string document = make_mcp_config(config).dump(2) + "\n";
  const auto done = co_await agent.run_script(kScript, document, deadline);
  if (!done) co_return tl::unexpected(done.error());
  if (done->exit_code != 0) {
    CO_FAIL("the guest did not take the configuration: {}", escape_line(done->error));
  }
  co_return Status();
}

}  // namespace agent_vm

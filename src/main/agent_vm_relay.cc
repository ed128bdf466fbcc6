// agent-vm-relay: carries connections between the host's loopback, or a Unix socket, and the guest.
// Started only by the supervisor, inside a jail, with its listeners as open descriptors.
#include <CLI/CLI.hpp>

#include "base/log.h"
#include "net/address_plan.h"
#include "net/relay.h"

int main(int argc, char** argv) {
  using namespace agent_vm;
  CLI::App app("carries TCP connections between the host's loopback and the guest");
  int ssh_listener = -1;
  int mcp_listener = -1;
  int mcp_socket = -1;
  int activity = -1;
  app.add_option("--ssh-listener", ssh_listener, "descriptor of the SSH port's listening socket")
      ->required();
  app.add_option("--mcp-listener", mcp_listener, "descriptor of the MCP port's listening socket")
      ->required();
  app.add_option("--mcp-socket", mcp_socket,
                 "descriptor of the MCP endpoint's listening Unix socket")
      ->required();
  app.add_option("--activity", activity, "descriptor that is told the number of open connections")
      ->required();
  CLI11_PARSE(app, argc, argv);
  log::to_stderr(log::Level::kInfo);
  const std::string guest(kGuestAddress);
  const auto status = run_relay({{ssh_listener, guest, kGuestSshPort},
                                 {mcp_listener, guest, kGuestMcpPort},
                                 {mcp_socket, guest, kGuestMcpPort}},
                                activity);
  log::error("{}", status.error().message());
  return 1;
}

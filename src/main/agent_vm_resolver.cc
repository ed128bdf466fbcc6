// agent-vm-resolver: tells the guest that every name is at the gateway. Started only by the
// supervisor, inside a jail, with its socket as an open descriptor.
#include <CLI/CLI.hpp>

#include "base/log.h"
#include "net/name_answer.h"

int main(int argc, char** argv) {
  using namespace agent_vm;
  CLI::App app("answers a guest's DNS queries with the gateway's address");
  int socket = -1;
  app.add_option("--socket", socket, "descriptor of the UDP socket")->required();
  CLI11_PARSE(app, argc, argv);
  log::to_stderr(log::Level::kInfo);
  const auto status = run_resolver(socket);
  log::error("{}", status.error().message());
  return 1;
}

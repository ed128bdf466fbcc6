// agent-vm-uplink: carries the gateway's traffic to the host's network. Started only by the
// supervisor, inside a jail, with the interface as an open descriptor.
#include <CLI/CLI.hpp>

#include "base/log.h"
#include "net/uplink.h"

int main(int argc, char** argv) {
  using namespace agent_vm;
  CLI::App app("carries a VM's web traffic to the host's network");
  UplinkOptions options;
  std::vector<std::string> allowed;
  app.add_option("--tap", options.tap, "descriptor of the uplink's interface")->required();
  app.add_option("--allow", allowed, "private range that may be reached; can be repeated");
  CLI11_PARSE(app, argc, argv);
  log::to_stderr(log::Level::kInfo);
  for (const auto& text : allowed) {
    const auto range = parse_ip_range(text);
    if (!range) {
      log::error("{}", range.error().message());
      return 1;
    }
    options.allowed.push_back(*range);
  }
  const auto status = run_uplink(options);
  log::error("{}", status.error().message());
  return 1;
}

// agent-mcp: the MCP gateway of the guest.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/log.h"
#include "gateway/app.h"

namespace {

constexpr const char* kUsage =
    "usage: agent-mcp --config FILE [--check] [--debug]\n"
    "\n"
    "Serves MCP servers over HTTP as FILE (JSON) says. SIGHUP reads FILE and the token again.\n"
    "  --check    only say whether the configuration is valid\n"
    "  --debug    log more\n"
    "  --version  print the version\n";

}  // namespace

int main(int argc, char** argv) {
  using namespace agent_vm;
  std::string config_file;
  bool check = false;
  log::Level level = log::Level::kInfo;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--config" && i + 1 < argc) {
      config_file = argv[++i];
    } else if (argument == "--check") {
      check = true;
    } else if (argument == "--debug") {
      level = log::Level::kDebug;
    } else if (argument == "--help" || argument == "-h") {
      std::fputs(kUsage, stdout);
      return 0;
    } else if (argument == "--version") {
      std::puts("agent-mcp " AGENT_VM_VERSION);
      return 0;
    } else {
      std::fprintf(stderr, "agent-mcp: unexpected argument: %s\n%s", argv[i], kUsage);
      return 2;
    }
  }
  if (config_file.empty()) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  log::to_stderr(level);
  auto config = gateway::load_config(config_file);
  if (!config) {
    log::error("{}", config.error().message());
    return 2;
  }
  if (check) return 0;
  const char* state = std::getenv("STATE_DIRECTORY");  // NOLINT(concurrency-mt-unsafe)
  if (config->state_directory.empty() && state != nullptr && *state == '/') {
    const std::string_view first(state);  // several are separated by colons
    config->state_directory = std::string(first.substr(0, first.find(':'))) + "/sessions";
  }
  return gateway::run(std::move(*config), config_file);
}

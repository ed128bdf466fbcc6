#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/progress.h"
#include "cli/run_vm.h"
#include "cli/verbs.h"
#include "launch/fork.h"
#include "os/interrupt.h"

namespace agent_vm {
namespace {

constexpr unsigned kMostForks = 64;

struct Options {
  std::string vm;
  std::string name;
  unsigned count = 1;
  bool force = false;
};

std::vector<std::string> names_of(const Options& options) {
  if (options.count == 1) return {options.name};
  std::vector<std::string> names;
  for (unsigned i = 1; i <= options.count; ++i)
    names.push_back(fmt::format("{}-{}", options.name, i));
  return names;
}

// One that does not start stays as it is, and can be started again.
Result<nlohmann::ordered_json> start_fork(Context& context, const StateDirectory& state,
                                          const VmConfig& config, const Deadline& deadline) {
  const VmDirectory vm = TRY(state.vm(config.name));
  const DirectoryLock lock = TRY(vm.lock(deadline));
  TRY(start_with_progress(context, vm, lock, deadline));
  context.out.print("VM '{}' runs: {}", config.name, escape_line(mcp_endpoint(config)));
  return nlohmann::ordered_json{{"vm_name", config.name},
                                {"mcp_endpoint", mcp_endpoint(config)},
                                {"ssh_port", config.ssh_port}};
}

Result<int> fork(Context& context, const Options& options) {
  const VmDirectory source = TRY(context.vm(options.vm));
  const StateDirectory state = TRY(context.state());
  const Deadline deadline = TRY(context.deadline(kStartPatience));
  const InterruptWatch interrupt = TRY(InterruptWatch::start());
  ForkOutcome outcome;
  {
    const DirectoryLock lock = TRY(source.lock(deadline));
    ProgressLine progress(context.out);
    progress.show("fork", "saving the guest, its disk and its workspace");
    const ForkRequest request{.names = names_of(options), .force = options.force};
    auto forked =
        fork_vm(state, source, request, {.deadline = deadline, .interrupt_fd = interrupt.fd()});
    if (!forked) return tl::unexpected(with_way_out(forked.error(), "fork", source));
    outcome = std::move(*forked);
  }
  context.out.note("VM '{}' stood still for {} ms", source.name(), outcome.stood.count());
  auto started = nlohmann::ordered_json::array();
  for (const auto& config : outcome.forks)
    started.push_back(
        TRY_CONTEXT(start_fork(context, state, config, deadline), "VM '{}'", config.name));
  context.out.json({{"source", source.name()},
                    {"stood_ms", outcome.stood.count()},
                    {"forks", std::move(started)}});
  return kExitOk;
}

}  // namespace

void add_fork(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, "fork", "more VMs of a running one: its processes, disk and workspace",
               "  agent-vm fork --name try-it\n"
               "  agent-vm fork app-main --name try --count 3     try-1, try-2, try-3");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_option("--name", options->name, "of the new VM")->type_name("NAME")->required();
  verb->add_option("--count", options->count, "how many; then the names end in -1, -2, ...")
      ->check(CLI::Range(1U, kMostForks))
      ->type_name("K");
  verb->add_flag("--force", options->force,
                 "even if processes of the guest have files in /workspace open, which they lose");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return fork(context, *options); });
}

}  // namespace agent_vm

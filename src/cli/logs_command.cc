#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/log_follower.h"
#include "cli/remote.h"
#include "cli/verbs.h"
#include "config/names.h"
#include "os/files.h"

namespace agent_vm {
namespace {

struct Options {
  std::string vm;
  std::string lines = "200";
  bool follow = false;
  bool console = false;
  bool network = false;
  bool supervisor = false;
};

Result<int> agent_service(Context& context, const VmDirectory& vm, const Options& options) {
  auto target = running_target(vm);
  if (!target) {
    Error error = std::move(target).error();
    if (error.kind() == ErrorKind::kNotRunning) {
      error = std::move(error).with_hint(fmt::format(
          "the journal is in the guest: agent-vm start {}; what the guest printed last: "
          "agent-vm logs {} --console",
          vm.name(), vm.name()));
    }
    return tl::unexpected(std::move(error));
  }
  RemoteRun command{.argv = {"journalctl", "--unit=agent-mcp", "--no-pager", "--quiet",
                             "--output=short-iso", "--all", "--lines=" + options.lines},
                    .deadline = TRY(context.deadline()),
                    .always_escape = true};
  if (options.follow) command.argv.emplace_back("--follow");
  return run_remotely(context.out, *target, command);
}

Result<int> logs(Context& context, const Options& options) {
  const auto lines = parse_unsigned(options.lines);
  if (!lines) {
    return fail(ErrorKind::kInvalidInput, "--lines: '{}' is not a number",
                escape_line(options.lines));
  }
  const VmDirectory vm = TRY(context.vm(options.vm));
  if (!options.console && !options.network && !options.supervisor) {
    return agent_service(context, vm, options);
  }
  const LogFile file = options.console ? LogFile{"logs/console.log", "logs/console.log.1"}
                       : options.supervisor
                           ? LogFile{"logs/supervisor.log", "logs/supervisor.1.log"}
                           : LogFile{"audit/network.jsonl", "audit/network.jsonl.1"};
  if (!options.follow && !exists_at(vm.fd(), file.current)) {
    return fail(ErrorKind::kNotFound, "VM '{}' has no such log yet ({}/{})", vm.name(), vm.path(),
                file.current);
  }
  const Deadline deadline = TRY(context.deadline());
  TRY(print_log(vm, file, *lines, options.follow, deadline));
  return kExitOk;
}

}  // namespace

void add_logs(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, "logs", "what the agent service, or another part of a VM, has to say",
               "  agent-vm logs                   the agent service's journal, from the guest\n"
               "  agent-vm logs -f my-branch      and what comes\n"
               "  agent-vm logs --console         what the guest printed on its serial console\n"
               "  agent-vm logs --supervisor      what the host's side did");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_flag("-f,--follow", options->follow, "go on with what comes");
  verb->add_option("-n,--lines", options->lines, "how many of the last lines")
      ->type_name("N")
      ->capture_default_str();
  auto* console = verb->add_flag("--console", options->console, "the guest's serial console");
  auto* network = verb->add_flag("--network", options->network, "the audit log of its requests");
  auto* supervisor = verb->add_flag("--supervisor", options->supervisor, "the supervisor's log");
  console->excludes(network)->excludes(supervisor);
  network->excludes(supervisor);
  on_run(*verb, context, [&context, options] { return logs(context, *options); });
}

}  // namespace agent_vm

#include "cli/fetch.h"

#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/remote.h"
#include "cli/run_vm.h"
#include "cli/verbs.h"
#include "os/files.h"
#include "os/interrupt.h"

namespace agent_vm {
namespace {

struct Options {
  std::string vm;
  std::string max_size;
};

Result<SshTarget> target_of(Context& context, const VmDirectory& vm) {
  auto target = running_target(vm);
  if (target || target.error().kind() != ErrorKind::kNotRunning) return target;
  context.out.note("VM '{}' is not running; starting it", vm.name());
  const Deadline deadline = TRY(context.deadline(kStartPatience));
  const DirectoryLock lock = TRY(vm.lock(deadline));
  TRY(start_with_progress(context, vm, lock, deadline));
  return running_target(vm);
}

void report(Context& context, const VmDirectory& vm, const std::vector<FetchedRef>& refs) {
  auto list = nlohmann::ordered_json::array();
  for (const auto& ref : refs) {
    list.push_back({{"ref", ref.name},
                    {"before", ref.before},
                    {"after", ref.after},
                    {"commits", ref.commits},
                    {"forced", ref.forced}});
  }
  context.out.json({{"vm_name", vm.name()}, {"refs", list}});
  constexpr std::string_view kRemotes = "refs/remotes/";
  for (const auto& ref : refs) {
    const std::string name = escape_line(ref.name.substr(kRemotes.size()));
    context.out.print("{}: {} new commit{}{}{}", name, ref.commits, ref.commits == 1 ? "" : "s",
                      ref.before.empty() ? " (new branch)" : "",
                      ref.forced ? " (rewritten: the earlier ones are in its reflog)" : "");
  }
  if (refs.empty()) {
    context.out.print("Nothing new in VM {}", vm.name());
  } else {
    context.out.print("Look at it with: git log {}",
                      escape_line(refs.front().name.substr(kRemotes.size())));
  }
}

Result<int> fetch(Context& context, const Options& options) {
  std::uint64_t max_bytes = kMaxFetch;
  if (!options.max_size.empty()) {
    max_bytes = TRY_CONTEXT(parse_size(options.max_size), "--max-size");
  }
  const VmDirectory vm = TRY(context.vm(options.vm));
  const VmConfig config = TRY(vm.read_config());
  if (!open_directory(config.source_repo)) {
    return fail("the repository of VM '{}', {}, is not there any more", vm.name(),
                escape_line(config.source_repo));
  }
  const SshTarget target = TRY(target_of(context, vm));
  const Deadline deadline = TRY(context.deadline());
  const InterruptWatch interrupt = TRY(InterruptWatch::start());
  const auto refs = TRY(fetch_from_vm(vm, target, config.source_repo, max_bytes,
                                      {.deadline = deadline, .interrupt_fd = interrupt.fd()}));
  report(context, vm, refs);
  return kExitOk;
}

}  // namespace

void add_fetch(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(
      app, "fetch", "bring a VM's commits to refs/remotes/agent-vm/<vm>/ of its repository",
      "  agent-vm fetch\n"
      "  agent-vm fetch my-branch && git log agent-vm/repo-my-branch/my-branch\n"
      "A VM that is stopped is started first.");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_option("--max-size", options->max_size, "refuse more than this; left out: 2G")
      ->type_name("SIZE");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return fetch(context, *options); });
}

}  // namespace agent_vm

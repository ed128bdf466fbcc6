#include <fcntl.h>

#include <cerrno>

#include "base/fd.h"
#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/run_vm.h"
#include "cli/status_report.h"
#include "cli/verbs.h"
#include "launch/prepare.h"
#include "os/files.h"

namespace agent_vm {
namespace {

struct Options {
  std::string vm;
  bool dry_run = false;
  bool cold = false;
  bool profile = false;
  std::string picture;  // path of an SVG file
};

// Opened before the start: a VM that runs and an error do not go together.
Result<Fd> open_picture(const std::string& path) {
  if (path.empty()) return Fd();
  Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file) return fail_errno(errno, "cannot write {}", path);
  return file;
}

// What is asked for beyond the report; the VM runs, so nothing here undoes that.
Status show_profile(Context& context, const VmDirectory& vm, StartOutcome& outcome,
                    const Options& options, const Fd& picture) {
  const Deadline deadline = TRY(context.deadline(std::chrono::seconds(60)));
  if (const auto added = add_boot_profile(vm, outcome.profile, deadline); !added) {
    context.out.note("the guest does not say how it booted: {}",
                     escape_line(added.error().message()));
  }
  if (options.profile) {
    for (const auto& line : to_lines(outcome.profile)) context.out.print("{}", line);
  }
  if (!picture) return {};
  TRY(write_all(picture.get(), to_svg(outcome.profile)));
  context.out.note("The picture is in {}", escape_line(options.picture));
  return {};
}

Result<int> dry_run(Context& context, const VmDirectory& vm, const Options& options) {
  const VmConfig config = TRY(vm.read_config());
  const PreparedStart prepared =
      TRY(prepare_start(vm, config, options.cold, TRY(context.deadline(kStartPatience))));
  const nlohmann::ordered_json plan = to_json(prepared.plan);
  context.out.json(plan);
  context.out.print("{}", plan.dump(2));
  return kExitOk;
}

Result<int> start(Context& context, const Options& options) {
  const VmDirectory vm = TRY(context.vm(options.vm));
  if (options.dry_run) return dry_run(context, vm, options);
  const Deadline deadline = TRY(context.deadline(kStartPatience));
  const Fd picture = TRY(open_picture(options.picture));
  StartOutcome outcome;
  {
    const DirectoryLock lock = TRY(vm.lock(deadline));
    outcome = TRY(start_with_progress(context, vm, lock, deadline, options.cold));
  }
  if (outcome.already_running) {
    context.out.note("VM '{}' is running already", vm.name());
  } else if (options.profile || picture) {
    TRY(show_profile(context, vm, outcome, options, picture));
  }
  return report_start(context, vm, outcome, options.profile);
}

}  // namespace

void add_start(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, "start", "start a VM and wait until SSH and the agent service answer",
               "  agent-vm start\n"
               "  agent-vm --timeout 60 start my-branch\n"
               "  agent-vm start --profile            where the time went\n"
               "  agent-vm start --dry-run --json     the launch plan; starts nothing");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_flag("--dry-run", options->dry_run, "print the launch plan and start nothing");
  verb->add_flag("--cold", options->cold, "boot the guest instead of resuming a template");
  verb->add_flag("--profile", options->profile, "show where the time of the start went");
  verb->add_option("--profile-svg", options->picture, "write a picture of that to this file")
      ->type_name("FILE");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return start(context, *options); });
}

}  // namespace agent_vm

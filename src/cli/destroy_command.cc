// destroy and undo-destroy.
#include <ctime>

#include "base/log.h"
#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/run_vm.h"
#include "cli/verbs.h"
#include "launch/remove_tree.h"
#include "state/ports.h"
#include "state/trash.h"

namespace agent_vm {
namespace {

using namespace std::chrono_literals;
constexpr auto kPatience = 60s;  // for a running VM to stop

struct Options {
  std::string vm;
  bool yes = false;
  bool purge = false;
};

std::string local_time(std::uint64_t seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  ::localtime_r(&time, &parts);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min);
}

std::uint64_t now() {
  return static_cast<std::uint64_t>(std::time(nullptr));
}

Result<bool> is_running(const VmDirectory& vm) {
  const std::optional<RunRecord> run = TRY(vm.read_run());
  return run && !run->is_stale();
}

Status stop_if_running(Context& context, const VmDirectory& vm, const Deadline& deadline) {
  if (!TRY(is_running(vm))) return {};
  TRY(stop_with_progress(context, vm, false, deadline));
  return {};
}

// There is no such VM any more: an earlier destroy may have been interrupted, or only its trash is
// left and is to be purged.
Result<bool> finish_earlier(Trash& trash, const std::string& name, bool purge) {
  bool finished = false;
  for (const auto& cleaned : TRY(trash.clean(now()))) finished = finished || cleaned == name;
  if (!purge) return finished;
  for (const auto& entry : TRY(trash.entries())) {
    if (entry.vm_name != name) continue;
    TRY(trash.purge(entry));
    finished = true;
  }
  return finished;
}

Status confirm(Context& context, const Options& options, const std::string& name) {
  if (options.yes || !context.out.interactive()) return {};
  const std::string question =
      options.purge ? fmt::format("Destroy VM {} and everything in it, for good?", name)
                    : fmt::format("Destroy VM {}? (It can be brought back for {} days.)", name,
                                  kTrashSeconds / 86400);
  if (context.out.confirm(question)) return {};
  return fail("VM '{}' was not destroyed", name);
}

Result<int> destroy(Context& context, const Options& options) {
  const Deadline deadline = TRY(context.deadline(kPatience));
  const StateDirectory state = TRY(context.state());
  auto vm = context.vm(options.vm);
  if (!vm) {
    if (vm.error().kind() != ErrorKind::kNotFound || options.vm.empty()) {
      return tl::unexpected(std::move(vm).error());
    }
    Trash trash = TRY(Trash::open(state, remove_vm_tree));
    if (!TRY(finish_earlier(trash, options.vm, options.purge))) {
      return tl::unexpected(std::move(vm).error());
    }
    context.out.json({{"vm_name", options.vm}, {"purged", true}});
    context.out.print("Removed what was left of VM {}", escape_line(options.vm));
    return kExitOk;
  }
  TRY(confirm(context, options, vm->name()));
  Trash trash = TRY(Trash::open(state, remove_vm_tree));
  TrashEntry entry;
  {
    const DirectoryLock lock = TRY(vm->lock(deadline));
    TRY(stop_if_running(context, *vm, deadline));
    entry = TRY(trash.put(*vm));
  }
  if (options.purge)
    TRY_CONTEXT(trash.purge(entry), "VM '{}' is gone, but not all of it", vm->name());
  context.out.json({{"vm_name", vm->name()},
                    {"purged", options.purge},
                    {"trash", options.purge ? "" : trash.path() + "/" + entry.file_name},
                    {"expires_at", options.purge ? 0 : entry.expires_at()}});
  context.out.print("Destroyed VM {}", vm->name());
  if (!options.purge) {
    context.out.print("It is kept until {} in {}/{}", local_time(entry.expires_at()),
                      escape_line(trash.path()), entry.file_name);
    context.out.print("Bring it back with: agent-vm undo-destroy {}", vm->name());
  }
  if (const auto cleaned = trash.clean(now()); !cleaned) {
    log::warn("cannot empty the trash: {}", cleaned.error().message());
  }
  return kExitOk;
}

// Somebody may have taken the ports while the VM was in the trash.
Result<VmConfig> settle_ports(const StateDirectory& state, const VmDirectory& vm) {
  VmConfig config = TRY(vm.read_config());
  const auto settle = [&](std::uint16_t& port, std::uint16_t first, std::uint16_t other,
                          const char* what) -> Status {
    PortRequest request{.address = config.bind_address,
                        .asked = port,
                        .first = first,
                        .avoid = other,
                        .except_vm = config.name,
                        .what = what};
    if (choose_port(state, request)) return {};
    request.asked.reset();
    const std::uint16_t chosen = TRY(choose_port(state, request));
    log::warn("the {} {} is taken; it is {} now", what, port, chosen);
    port = chosen;
    return {};
  };
  const VmConfig before = config;
  TRY(settle(config.port, kFirstMcpPort, config.ssh_port, "MCP port"));
  TRY(settle(config.ssh_port, kFirstSshPort, config.port, "SSH port"));
  if (config != before) TRY(vm.write_config(config));
  return config;
}

Result<int> undo_destroy(Context& context, const std::string& name) {
  const Deadline deadline = TRY(context.deadline(kPatience));
  const StateDirectory state = TRY(context.state());
  Trash trash = TRY(Trash::open(state, remove_vm_tree));
  std::optional<TrashEntry> latest;
  std::vector<std::string> names;
  for (const auto& entry : TRY(trash.entries())) {
    names.push_back(entry.vm_name);
    if (name.empty() || entry.vm_name == name) latest = entry;
  }
  if (!latest) {
    return tl::unexpected(
        Error(ErrorKind::kNotFound,
              name.empty() ? "the trash is empty"
                           : fmt::format("no VM '{}' is in the trash", escape_line(name)))
            .with_hint(names.empty() ? "" : "in the trash: " + join(names, ", ")));
  }
  const DirectoryLock state_lock = TRY(state.lock(deadline));
  const VmDirectory vm = TRY(trash.restore(state, *latest));
  const VmConfig config = TRY(settle_ports(state, vm));
  context.out.json(nlohmann::ordered_json::parse(to_json_text(config)));
  context.out.print("VM {} is back. Start it with: agent-vm start {}", vm.name(), vm.name());
  return kExitOk;
}

}  // namespace

void add_destroy(CLI::App& app, Context& context) {
  CLI::App* verb =
      add_verb(app, "destroy", "take a VM away, with its workspace",
               "  agent-vm destroy                 the VM of the current branch; asks first\n"
               "  agent-vm destroy x --yes         for scripts; agent-vm undo-destroy x undoes it\n"
               "  agent-vm destroy x --purge       for good, also out of the trash");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  verb->add_flag("-y,--yes", options->yes, "do not ask");
  verb->add_flag("--purge", options->purge, "remove it for good, instead of into the trash");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return destroy(context, *options); });
}

void add_undo_destroy(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "undo-destroy", "bring a destroyed VM back",
                            "  agent-vm undo-destroy            the one that was destroyed last\n"
                            "  agent-vm undo-destroy app-main");
  auto name = std::make_shared<std::string>();
  verb->add_option("VM", *name, "full name; left out: the one that was destroyed last");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, name] { return undo_destroy(context, *name); });
}

}  // namespace agent_vm

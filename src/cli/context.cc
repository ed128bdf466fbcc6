#include "cli/context.h"

#include "base/text.h"

namespace agent_vm {

Result<Deadline> Context::deadline(std::optional<std::chrono::milliseconds> fallback) const {
  if (!timeout_text.empty()) {
    const std::uint64_t ms = TRY_CONTEXT(parse_duration_ms(timeout_text), "--timeout");
    if (ms == 0) return fail(ErrorKind::kInvalidInput, "--timeout: 0 leaves no time at all");
    return Deadline::in(std::chrono::milliseconds(ms));
  }
  return fallback ? Deadline::in(*fallback) : Deadline::never();
}

Result<std::string> Context::state_path() const {
  if (state_dir.empty()) return StateDirectory::default_path();
  return state_dir;
}

Result<StateDirectory> Context::state() const {
  const std::string path = TRY(state_path());
  return StateDirectory::open(path);
}

Result<StateDirectory> Context::state_or_new() const {
  const std::string path = TRY(state_path());
  return StateDirectory::open_or_make(path);
}

Result<VmDirectory> Context::vm(const std::string& argument) const {
  const StateDirectory directory = TRY(state());
  return resolve_vm(directory, argument.empty() ? std::nullopt : std::optional(argument),
                    working_directory);
}

CLI::App* add_verb(CLI::App& app, const std::string& name, const std::string& description,
                   const std::string& examples) {
  CLI::App* verb = app.add_subcommand(name, description);
  verb->fallthrough();
  if (!examples.empty()) verb->footer("Examples:\n" + examples);
  return verb;
}

void add_vm_argument(CLI::App& verb, std::string& vm) {
  verb.add_option("VM", vm,
                  "full name or branch; left out: the current repository's current branch");
}

void add_json_flag(CLI::App& verb, Context& context) {
  verb.add_flag("--json", context.out.json_mode, "print JSON for programs");
}

void on_run(CLI::App& verb, Context& context, std::function<Result<int>()> action) {
  verb.callback([&context, action = std::move(action)] { context.action = action; });
}

}  // namespace agent_vm

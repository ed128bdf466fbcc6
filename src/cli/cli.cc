#include "cli/cli.h"

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "base/log.h"
#include "base/text.h"
#include "cli/context.h"
#include "cli/exit_code.h"
#include "cli/verbs.h"

namespace agent_vm {
namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  agent-vm create                 a VM for this repository's current branch\n"
    "  agent-vm create --branch try-it a VM for a new branch\n"
    "  agent-vm list                   all VMs\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 invalid input, 3 not running, 4 running but not healthy,\n"
    "5 no such VM or image, 6 timeout, 7 this machine lacks something, 130 interrupted.";

void add_verbs(CLI::App& app, Context& context) {
  add_create(app, context);
  add_start(app, context);
  add_status(app, context);
  add_stop(app, context);
  add_restart(app, context);
  add_suspend(app, context);
  add_resume(app, context);
  add_fork(app, context);
  add_reset(app, context);
  add_shell(app, context);
  add_exec(app, context);
  add_logs(app, context);
  add_net(app, context);
  add_fetch(app, context);
  add_mcp(app, context);
  add_list(app, context);
  add_config(app, context);
  add_update(app, context);
  add_trust(app, context);
  add_destroy(app, context);
  add_undo_destroy(app, context);
  add_image(app, context);
  add_doctor(app, context);
  add_completion(app, context);
}

std::vector<std::string> verb_names(CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* verb : app.get_subcommands({})) names.push_back(verb->get_name());
  return names;
}

// Index of the verb: the first argument that is neither a global option nor the value of one.
std::size_t find_verb(const std::vector<std::string>& arguments) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--state-dir" || arguments[i] == "--timeout") {
      ++i;
    } else if (!arguments[i].starts_with('-')) {
      return i;
    }
  }
  return arguments.size();
}

std::vector<std::string> option_names(const CLI::App& app, const CLI::App* verb) {
  std::vector<std::string> names;
  for (const auto* source : {verb, &app}) {
    if (source == nullptr) continue;
    for (const auto* option : source->get_options()) {
      for (const auto& name : option->get_lnames()) names.push_back("--" + name);
    }
  }
  return names;
}

Error explain(const CLI::App& app, const CLI::ParseError& error) {
  const auto chosen = app.get_subcommands();
  const CLI::App* verb = chosen.empty() ? nullptr : chosen.front();
  const std::string help =
      fmt::format("see: agent-vm {}--help", verb != nullptr ? verb->get_name() + " " : "");
  for (const auto& extra : app.remaining(true)) {
    if (!extra.starts_with('-') && verb != nullptr && verb->get_name() == "exec") {
      return Error(ErrorKind::kInvalidInput,
                   fmt::format("unexpected argument '{}'", escape_line(extra)))
          .with_hint("the command stands behind --: agent-vm exec my-branch -- make test");
    }
    if (!extra.starts_with('-')) {
      return Error(ErrorKind::kInvalidInput,
                   fmt::format("unexpected argument '{}'", escape_line(extra)))
          .with_hint(help);
    }
    const std::string name = extra.substr(0, extra.find('='));
    const auto near = nearest(name, option_names(app, verb));
    return Error(ErrorKind::kInvalidInput,
                 fmt::format("unknown option '{}'{}", escape_line(name),
                             near ? fmt::format("; did you mean '{}'?", *near) : ""))
        .with_hint(help);
  }
  return Error(ErrorKind::kInvalidInput, error.what()).with_hint(help);
}

Status check_verb(CLI::App& app, const std::vector<std::string>& arguments) {
  const std::size_t at = find_verb(arguments);
  if (at == arguments.size()) return {};
  for (std::size_t i = 0; i < at; ++i) {
    // Behind an option that nobody knows, what looks like the verb may be its value: the parser
    // will complain about the option.
    const std::string name = arguments[i].substr(0, arguments[i].find('='));
    if (name.starts_with('-') && app.get_option_no_throw(name) == nullptr) return {};
  }
  const auto names = verb_names(app);
  if (std::ranges::find(names, arguments[at]) != names.end()) return {};
  const auto near = nearest(arguments[at], names);
  return tl::unexpected(Error(ErrorKind::kInvalidInput,
                              fmt::format("unknown verb '{}'{}", escape_line(arguments[at]),
                                          near ? fmt::format("; did you mean '{}'?", *near) : ""))
                            .with_hint("see: agent-vm --help"));
}

// Takes what stands behind "--" out of the arguments of exec, mcp add and __complete: it is
// somebody else's.
std::vector<std::string> take_command(std::vector<std::string>& arguments) {
  const std::size_t verb = find_verb(arguments);
  if (verb == arguments.size()) return {};
  if (arguments[verb] != "exec" && arguments[verb] != "mcp" && arguments[verb] != "__complete") {
    return {};
  }
  const auto dashes = std::ranges::find(arguments, "--");
  if (dashes == arguments.end()) return {};
  std::vector<std::string> command(dashes + 1, arguments.end());
  arguments.erase(dashes, arguments.end());
  return command;
}

Result<int> run(CLI::App& app, Context& context, std::vector<std::string> arguments) {
  context.command = take_command(arguments);
  // Errors before the parser has seen --json should honour it too.
  context.out.json_mode = std::ranges::find(arguments, "--json") != arguments.end();
  TRY(check_verb(app, arguments));
  try {
    std::ranges::reverse(arguments);  // the parser takes them from the back
    app.parse(arguments);
  } catch (const CLI::Success& success) {
    return app.exit(success);  // --help and --version
  } catch (const CLI::ParseError& error) {
    return tl::unexpected(explain(app, error));
  }
  if (context.debug || context.verbose) {
    log::to_stderr(context.debug ? log::Level::kDebug : log::Level::kInfo);
  }
  context.out.show_trail = context.debug;
  if (!context.action) {
    context.out.note("{}", app.help());
    return kExitInvalidInput;
  }
  TRY(context.deadline());  // a --timeout that cannot be read is an error for every verb
  return context.action();
}

}  // namespace

int run_cli(const std::vector<std::string>& arguments, const std::string& version) {
  // A reader that goes away is seen as an error of write().
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  log::to_stderr(log::Level::kWarn);
  Context context;
  context.out = Output::detect();
  std::error_code error;
  context.working_directory = std::filesystem::current_path(error).string();

  CLI::App app("Runs AI coding agents in virtual machines of their own.", "agent-vm");
  app.set_version_flag("--version", "agent-vm " + version);
  // The last one counts, so that an alias or a script may name one and its user another.
  app.add_option("--state-dir", context.state_dir, "where VMs are kept")
      ->type_name("DIR")
      ->take_last();
  app.add_option("--timeout", context.timeout_text, "bound for everything that waits")
      ->type_name("SECONDS")
      ->take_last();
  app.add_flag("-v,--verbose", context.verbose, "show what is being done");
  app.add_flag("-d,--debug", context.debug, "show everything, such as each program that is run");
  app.require_subcommand(0, 1);
  app.footer(kExamples);
  add_verbs(app, context);

  try {
    const auto status = run(app, context, arguments);
    if (status) return *status;
    context.out.error(status.error());
    return exit_code(status.error().kind());
  } catch (const std::exception& e) {
    // Only libraries throw; what they throw here is a bug of ours or a lack of memory.
    context.out.error(Error(ErrorKind::kInternal, fmt::format("internal error: {}", e.what())));
    return kExitFailed;
  }
}

}  // namespace agent_vm

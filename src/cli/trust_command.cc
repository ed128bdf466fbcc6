#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/trust.h"
#include "cli/verbs.h"
#include "state/create.h"

namespace agent_vm {
namespace {

struct Options {
  std::string path = ".";
  bool yes = false;
  bool revoke = false;
};

Result<int> revoke(Context& context, TrustStore& store, const std::string& repository) {
  const Deadline deadline = TRY(context.deadline());
  const bool was = TRY(store.forget(repository, deadline));
  context.out.json({{"repository", repository}, {"trusted", false}});
  context.out.print("{} is {}trusted", escape_line(repository), was ? "no longer " : "not ");
  return kExitOk;
}

Result<int> trust(Context& context, const Options& options) {
  const Deadline deadline = TRY(context.deadline());
  const std::string state_path = TRY(context.state_path());
  const SourceRepository source =
      TRY(inspect_source(options.path, "", state_path, {.deadline = deadline}));
  const std::string config_path = TRY(owner_config_path());
  TrustStore store(config_path);
  if (options.revoke) return revoke(context, store, source.top);

  const HostResources host = TRY(HostResources::detect());
  const Settings owner = TRY(read_owner_settings(config_path));
  const RepositoryFile file = TRY(read_repository_file(source.top));
  const auto lines = describe(widenings(file.settings, base_config(host, owner)));
  const bool trusted = file.present && TRY(store.is_trusted(source.top, file.sha256));
  const auto report = [&](bool now) {
    context.out.json(
        {{"repository", source.top}, {"sha256", file.sha256}, {"widens", lines}, {"trusted", now}});
  };
  if (lines.empty() || trusted) {
    report(trusted);
    context.out.print("{}", lines.empty() ? "Nothing to agree to: it asks for nothing more than "
                                            "your configuration gives."
                                          : "You trust it already, until it changes.");
    return kExitOk;
  }
  context.out.note("{} of {} asks for more than your configuration gives:", kRepositoryFile,
                   escape_line(source.top));
  for (const auto& line : lines) context.out.note("  {}", escape_line(line));
  if (!options.yes && !context.out.confirm("Trust it, until it changes?")) {
    if (context.out.interactive()) return fail("not trusted");
    return tl::unexpected(
        Error(ErrorKind::kInvalidInput, "nobody is there to be asked")
            .with_hint(fmt::format("agent-vm trust --yes {}", shell_quote(source.top))));
  }
  TRY(store.trust(source.top, file.sha256, deadline));
  report(true);
  context.out.print("Trusted, until it changes. It takes effect at the next create or update.");
  return kExitOk;
}

}  // namespace

void add_trust(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "trust", "agree to what a repository's agent-vm.toml asks for",
                            "  agent-vm trust              shows the difference and asks\n"
                            "  agent-vm trust --yes DIR    for scripts\n"
                            "  agent-vm trust --revoke     takes it back");
  auto options = std::make_shared<Options>();
  verb->add_option("REPOSITORY", options->path, "left out: the current one");
  verb->add_flag("-y,--yes", options->yes, "do not ask");
  verb->add_flag("--revoke", options->revoke, "forget the agreement");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return trust(context, *options); });
}

}  // namespace agent_vm

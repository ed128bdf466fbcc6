#include "cli/trust.h"

#include "base/text.h"

namespace agent_vm {

std::vector<std::string> describe(const std::vector<Widening>& widenings) {
  std::vector<std::string> lines;
  for (const auto& one : widenings) {
    lines.push_back(one.from.empty() ? fmt::format("{}: + {}", one.what, one.to)
                                     : fmt::format("{}: {} -> {}", one.what, one.from, one.to));
  }
  return lines;
}

Result<Settings> agreed_settings(Context& context, const std::string& repository,
                                 const VmConfig& base, bool trust_flag) {
  const RepositoryFile file = TRY(read_repository_file(repository));
  const auto widening = widenings(file.settings, base);
  if (widening.empty()) return file.settings;

  const std::string config_path = TRY(owner_config_path());
  TrustStore store(config_path);
  if (TRY(store.is_trusted(repository, file.sha256))) return file.settings;
  const auto lines = describe(widening);
  if (!trust_flag && context.out.interactive()) {
    context.out.note("{} of {} asks for more than your configuration gives:", kRepositoryFile,
                     escape_line(repository));
    for (const auto& line : lines) context.out.note("  {}", escape_line(line));
    trust_flag = context.out.confirm("Trust it, until it changes?");
  }
  if (!trust_flag) {
    return tl::unexpected(
        Error(ErrorKind::kInvalidInput,
              fmt::format("{} of {} asks for more than your configuration gives, and you have not "
                          "trusted it",
                          kRepositoryFile, escape_line(repository)))
            .with_evidence(lines)
            .with_hint(fmt::format("to agree to it: agent-vm trust {}", shell_quote(repository))));
  }
  const Deadline deadline = TRY(context.deadline());
  TRY(store.trust(repository, file.sha256, deadline));
  return file.settings;
}

}  // namespace agent_vm

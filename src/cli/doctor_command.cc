#include <algorithm>

#include "base/text.h"
#include "cli/doctor.h"
#include "cli/exit_code.h"
#include "cli/verbs.h"

namespace agent_vm {
namespace {

using Level = Check::Level;

Colour colour_of(Level level) {
  if (level == Level::kOk) return Colour::kGreen;
  return level == Level::kWarning ? Colour::kYellow : Colour::kRed;
}

Result<int> doctor(Context& context) {
  const Deadline deadline = TRY(context.deadline(std::chrono::seconds(60)));
  const std::string state_path = TRY(context.state_path());
  const auto checks = examine_machine(state_path, deadline);
  const auto worst = std::ranges::max(checks, {}, &Check::level).level;

  auto list = nlohmann::ordered_json::array();
  for (const auto& check : checks) {
    list.push_back({{"id", check.id},
                    {"title", check.title},
                    {"level", to_string(check.level)},
                    {"detail", check.detail},
                    {"mend", check.mend}});
  }
  context.out.json({{"level", to_string(worst)}, {"checks", list}});

  for (const auto& check : checks) {
    const std::string level = fmt::format("{:<7}", to_string(check.level));
    context.out.print("{}  {:<16} {}", context.out.paint(colour_of(check.level), level),
                      check.title, escape_line(check.detail));
    if (!check.mend.empty()) context.out.print("{:26} mend: {}", "", escape_line(check.mend));
  }
  if (worst == Level::kMissing) {
    context.out.print("Something that VMs need is missing.");
  } else {
    context.out.print("VMs can run here{}.",
                      worst == Level::kWarning ? ", with the limits above" : "");
  }
  return worst == Level::kMissing ? kExitMissing : kExitOk;
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "doctor", "what this machine has, lacks, and how to mend it",
                            "  agent-vm doctor\n"
                            "  agent-vm doctor --json\n"
                            "Exit status: 7 when something that VMs need is missing.");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context] { return doctor(context); });
}

}  // namespace agent_vm

// Shell completions. The shells' functions hold no knowledge: they ask the hidden verb __complete,
// which looks at the very parser that will read the finished line.
#include <algorithm>
#include <iterator>

#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/verbs.h"

namespace agent_vm {
namespace {

// clang-format off: the scripts are text, not code.
constexpr const char* kBash = R"sh(# bash completion of agent-vm: eval "$(agent-vm completion bash)"
_agent_vm() {
  local IFS=$'\n' word=${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=($(compgen -W "$(agent-vm __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "$word"))
}
complete -o default -F _agent_vm agent-vm
)sh";

constexpr const char* kZsh = R"sh(#compdef agent-vm
# zsh completion of agent-vm: eval "$(agent-vm completion zsh)", or as _agent-vm in $fpath
_agent-vm() {
  local -a candidates
  candidates=("${(@f)$(agent-vm __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if (( ${#candidates} )) && [[ -n $candidates[1] ]]; then
    compadd -a candidates
  else
    _files
  fi
}
if [[ $funcstack[1] == _agent-vm ]]; then
  _agent-vm "$@"
else
  compdef _agent-vm agent-vm
fi
)sh";

constexpr const char* kFish = R"sh(# fish completion of agent-vm: agent-vm completion fish | source
function __agent_vm_complete
  set -l words (commandline --tokenize --cut-at-cursor --current-process)
  agent-vm __complete -- $words[2..-1] (commandline --current-token --cut-at-cursor) 2>/dev/null
end
complete --command agent-vm --arguments '(__agent_vm_complete)'
)sh";
// clang-format on

Result<int> print_script(Context& context, const std::string& shell) {
  if (shell == "bash") {
    context.out.print("{}", kBash);
  } else if (shell == "zsh") {
    context.out.print("{}", kZsh);
  } else if (shell == "fish") {
    context.out.print("{}", kFish);
  } else {
    return fail(ErrorKind::kInvalidInput,
                "no completion for '{}'; there is one for bash, zsh and fish", escape_line(shell));
  }
  return kExitOk;
}

std::vector<std::string> long_options(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::vector<std::string> vm_words(const Context& context) {
  std::vector<std::string> words;
  const auto state = context.state();
  if (!state) return words;
  const auto names = state->names();
  if (!names) return words;
  for (const auto& name : *names) {
    words.push_back(name);
    const auto vm = state->vm(name);
    if (!vm) continue;
    if (const auto config = vm->read_config()) words.push_back(config->branch);
  }
  return words;
}

// Candidates for the last of `words`, which may be empty.
std::vector<std::string> candidates(const CLI::App& app, Context& context,
                                    const std::vector<std::string>& words) {
  const CLI::App* verb = nullptr;
  for (std::size_t i = 0; i + 1 < words.size() && verb == nullptr; ++i) {
    if (words[i] == "--state-dir" && i + 2 < words.size()) context.state_dir = words[++i];
    if (words[i] == "--") return {};
    for (const auto* each : app.get_subcommands({})) {
      if (each->get_name() == words[i]) verb = each;
    }
  }
  const std::string& current = words.back();
  std::vector<std::string> found;
  if (current.starts_with('-')) {
    found = long_options(app);
    if (verb != nullptr) std::ranges::copy(long_options(*verb), std::back_inserter(found));
  } else if (verb == nullptr) {
    for (const auto* each : app.get_subcommands({})) {
      if (!each->get_name().starts_with('_')) found.push_back(each->get_name());
    }
  } else if (verb->get_option_no_throw("VM") != nullptr) {
    found = vm_words(context);
  }
  std::erase_if(found, [&](const std::string& word) { return !word.starts_with(current); });
  return found;
}

}  // namespace

void add_completion(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "completion", "print a completion script for a shell",
                            "  eval \"$(agent-vm completion bash)\"\n"
                            "  agent-vm completion fish | source");
  auto shell = std::make_shared<std::string>();
  verb->add_option("SHELL", *shell, "bash, zsh or fish")->required();
  on_run(*verb, context, [&context, shell] { return print_script(context, *shell); });

  CLI::App* hidden = app.add_subcommand("__complete", "")->group("");
  on_run(*hidden, context, [&app, &context]() -> Result<int> {
    if (context.command.empty()) context.command.emplace_back();
    for (const auto& word : candidates(app, context, context.command)) {
      context.out.print("{}", escape_line(word));
    }
    return kExitOk;
  });
}

}  // namespace agent_vm

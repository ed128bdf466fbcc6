#include "git/ssh_arguments.h"

#include "base/text.h"

namespace agent_vm {

Result<SshArguments> parse_ssh_arguments(const std::vector<std::string>& arguments) {
  SshArguments parsed;
  std::vector<std::string> words;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (!words.empty() || !argument.starts_with('-')) {
      words.push_back(argument);
    } else if (argument == "-p" || argument == "-o") {
      if (++i == arguments.size())
        return fail(ErrorKind::kInvalidInput, "{} wants a value", argument);
      // Options of git's own are about sending GIT_PROTOCOL, which we do.
      if (argument == "-p") parsed.port = arguments[i];
    } else if (argument != "-4" && argument != "-6" && argument != "-T" && argument != "-x") {
      return fail(ErrorKind::kInvalidInput, "ssh's option '{}' is not for git", argument);
    }
  }
  const auto call = words.size() == 2 ? split(words[1], ' ') : std::vector<std::string>();
  if (call.size() != 2 || (call[0] != "git-upload-pack" && call[0] != "git-receive-pack")) {
    return fail(ErrorKind::kInvalidInput,
                "this is for git alone, to fetch from and push to a repository behind SSH");
  }
  parsed.host = words[0];
  if (const auto at = parsed.host.rfind('@'); at != std::string::npos) {
    parsed.user = parsed.host.substr(0, at);
    parsed.host.erase(0, at + 1);
  }
  parsed.service = call[0];
  parsed.path = call[1];
  if (parsed.path.size() > 2 && parsed.path.front() == '\'' && parsed.path.back() == '\'')
    parsed.path = parsed.path.substr(1, parsed.path.size() - 2);
  return parsed;
}

}  // namespace agent_vm

// The part of mcp_npm.h that reaches no guest.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/mcp_npm.h"
#include "config/names.h"

namespace agent_vm {
namespace {

using nlohmann::json;

constexpr std::string_view kModules = "node_modules/";
constexpr std::size_t kMaxName = 128;

tl::unexpected<Error> not_understood(const std::string& why) {
  return tl::unexpected(
      Error(ErrorKind::kInvalidInput, why)
          .with_hint(
              "what is understood: npx -y PACKAGE[@VERSION] ARGUMENT..., or npx -y --package "
              "PACKAGE PROGRAM ARGUMENT...; /usr/bin/npx is run as it is"));
}

bool is_plain(const std::string& text, std::string_view also) {
  return !text.empty() && text.size() <= kMaxName && text.front() != '.' && text.front() != '-' &&
         std::ranges::all_of(text, [&](unsigned char c) {
           return c < 0x80 &&
                  (std::isalnum(c) != 0 || also.find(static_cast<char>(c)) != also.npos);
         });
}

// As npx chooses: the only program, else the one with the package's own name.
Result<std::string> program_of(const json& package, const NpxCommand& command) {
  const std::string name = npm_package_name(command.spec);
  std::vector<std::string> programs;
  if (package.contains("bin") && package["bin"].is_object()) {
    for (const auto& [program, file] : package["bin"].items()) {
      if (is_plain(program, "._-")) programs.push_back(program);
    }
  }
  const std::string own = name.substr(name.find('/') + 1);
  const std::string wanted = !command.program.empty() ? command.program : own;
  if (std::ranges::find(programs, wanted) != programs.end()) return wanted;
  if (command.program.empty() && programs.size() == 1) return programs.front();
  if (programs.empty()) return fail("the package {} has no program to run", name);
  return tl::unexpected(
      Error(ErrorKind::kInvalidInput,
            command.program.empty()
                ? fmt::format("the package {} has several programs: {}", name, join(programs, ", "))
                : fmt::format("the package {} has no program '{}', but: {}", name,
                              escape_line(command.program), join(programs, ", ")))
          .with_hint(fmt::format("name one: npx -y --package {} {}", command.spec, programs[0])));
}

}  // namespace

Result<std::optional<NpxCommand>> parse_npx(const std::vector<std::string>& argv) {
  if (argv.empty() || argv[0] != "npx") return std::nullopt;
  NpxCommand command;
  std::size_t at = 1;
  for (; at < argv.size() && argv[at].starts_with('-'); ++at) {
    const std::string& option = argv[at];
    constexpr std::string_view kPackage = "--package=";
    if (option == "--") {
      ++at;
      break;
    }
    if (option == "-y" || option == "--yes" || option == "-q" || option == "--quiet") continue;
    const bool apart = option == "-p" || option == "--package";
    if (!apart && !option.starts_with(kPackage)) {
      return not_understood(
          fmt::format("npx's option '{}' means nothing here", escape_line(option)));
    }
    if (apart && at + 1 == argv.size()) return not_understood("npx: no package is named");
    if (!command.spec.empty()) return not_understood("npx: more than one package");
    command.spec = apart ? argv[++at] : option.substr(kPackage.size());
  }
  if (at == argv.size()) return not_understood("npx: nothing to run is named");
  (command.spec.empty() ? command.spec : command.program) = argv[at++];
  TRY(valid_npm_spec(command.spec));
  command.arguments.assign(argv.begin() + static_cast<std::ptrdiff_t>(at), argv.end());
  return command;
}

Result<NpmPackage> read_npm_record(std::string_view text, const NpxCommand& command) {
  const json record = json::parse(text, nullptr, false);
  const json packages = record.is_object() ? record.value("packages", json()) : json();
  const std::string name = npm_package_name(command.spec);
  const std::string key = std::string(kModules) + name;
  if (!packages.is_object() || !packages.contains(key) || !packages[key].is_object()) {
    return fail("npm does not say what it installed for {}", name);
  }
  const json& package = packages[key];
  NpmPackage installed;
  const json version = package.value("version", json());
  if (version.is_string()) installed.version = version.get<std::string>();
  if (!is_plain(installed.version, ".+-"))
    return fail("the package {} has no usable version", name);
  installed.program = TRY(program_of(package, command));
  for (const auto& [path, entry] : packages.items()) {
    if (!entry.is_object() || entry.value("hasInstallScript", json()) != true) continue;
    const auto last = path.rfind(kModules);
    installed.scripts.push_back(last == std::string::npos ? path
                                                          : path.substr(last + kModules.size()));
  }
  return installed;
}

std::string npm_folder(std::string_view package, std::string_view version) {
  std::string name(package);
  std::ranges::replace(name, '/', '+');  // no package has a '+' in its name
  return fmt::format("{}@{}", name, version);
}

std::string npm_package_of(const McpServer& server) {
  const std::string prefix = std::string(kNpmServers) + "/";
  if (server.argv.empty() || !server.argv[0].starts_with(prefix)) return "";
  const std::string rest = server.argv[0].substr(prefix.size());
  std::string folder = rest.substr(0, rest.find('/'));
  const auto version = folder.find('@', 1);
  const auto plus = folder.find('+');
  if (version == std::string::npos) return "";
  if (folder[0] == '@' && plus < version) folder[plus] = '/';
  return valid_npm_spec(folder) ? folder : "";
}

std::vector<std::string> npm_commands(const VmConfig& config) {
  std::vector<std::string> commands;
  for (const auto& [name, server] : config.mcp_servers) {
    const std::string package = npm_package_of(server);
    if (package.empty()) continue;
    std::vector<std::string> argv{"agent-vm", "mcp", "add", name, config.name};
    for (const auto& [key, value] : server.environment) {
      argv.insert(argv.end(), {"--env", key + "=" + value});
    }
    if (!server.working_directory.empty()) {
      argv.insert(argv.end(), {"--cwd", server.working_directory});
    }
    const std::string program = server.argv[0].substr(server.argv[0].rfind('/') + 1);
    argv.insert(argv.end(), {"--", "npx", "-y", "--package", package, program});
    argv.insert(argv.end(), server.argv.begin() + 1, server.argv.end());
    commands.push_back(shell_join(argv));
  }
  return commands;
}

}  // namespace agent_vm

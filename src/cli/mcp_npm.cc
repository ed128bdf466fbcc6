#include "cli/mcp_npm.h"

#include <algorithm>

#include "base/log.h"
#include "base/text.h"
#include "cli/net.h"
#include "cli/remote.h"
#include "config/names.h"
#include "launch/egress.h"
#include "os/random.h"
#include "os/run.h"

namespace agent_vm {
namespace {

using namespace std::chrono_literals;

constexpr auto kCleanup = 30s;
constexpr std::size_t kEvidence = 12;  // lines
constexpr std::size_t kMaxRecord = 16U << 20U;
constexpr std::string_view kFetched = "npm http fetch ";

Result<CommandOutput> in_guest(const SshTarget& target, const std::string& script,
                               const Deadline& deadline) {
  Command command;
  command.argv = ssh_argv(target, use_kept_connection(target, "-T"));
  command.argv.push_back(script);
  command.deadline = deadline;
  return run_checked(command);
}

// What npm said, without what it says of each file.
std::vector<std::string> words_of(const std::string& error) {
  std::vector<std::string> lines = split_lines(error);
  std::erase_if(lines, [](const std::string& line) {
    return line.starts_with(kFetched) || trim(line).empty() ||
           line.find("complete log of this run") != std::string::npos ||
           line.find("/_logs/") != std::string::npos;
  });
  if (lines.size() > kEvidence) lines.resize(kEvidence);
  return lines;
}

// Where the guest's npm was told to get a package from, or nothing.
std::string registry_of(const VmDirectory& vm, const std::string& package) {
  const auto text = vm.read_small_file(kPackageSettings);
  const auto settings = nlohmann::json::parse(text.value_or(""), nullptr, false);
  const auto npm = settings.is_object() ? settings.value("npm", nlohmann::json()) : settings;
  if (!npm.is_string()) return "";
  const std::string scope = package.starts_with('@') ? package.substr(0, package.find('/')) : "";
  std::string found;
  for (const auto& line : split_lines(npm.get<std::string>())) {
    constexpr std::string_view kKey = "registry=";
    const std::string own = scope + ":" + std::string(kKey);
    if (!scope.empty() && line.starts_with(own)) return line.substr(own.size());
    if (line.starts_with(kKey)) found = line.substr(kKey.size());
  }
  return found;
}

// Asks the policy before npm does, which would take its time and not know why.
Status policy_allows(const VmDirectory& vm, const std::string& spec, const Deadline& deadline) {
  const std::string what = fmt::format("cannot install {} in VM {}", spec, vm.name());
  const NetworkPolicy policy = TRY(vm.read_config()).network;
  if (policy.mode == NetworkMode::kOff) {
    return tl::unexpected(
        Error(ErrorKind::kFailed, what + ": its network is off")
            .with_hint(fmt::format("agent-vm net mode allowlist --vm {}", vm.name())));
  }
  const std::string registry = registry_of(vm, npm_package_name(spec));
  if (registry.empty()) return {};
  const auto decision = TRY(web_decision(vm, "GET", registry, deadline));
  if (decision.value("allowed", true)) return {};
  // What no rule names can be allowed, and what a word of the owner's refuses, by another word.
  const bool by_word = std::ranges::find(policy.owner_deny, "@npm") != policy.owner_deny.end();
  const bool helps = by_word || decision.value("rule", "") == "mode allowlist";
  return tl::unexpected(
      Error(ErrorKind::kFailed,
            fmt::format("{}: its network policy refuses the package registry: {}", what,
                        escape_line(decision.value("why", ""))))
          .with_hint(helps ? fmt::format("agent-vm net allow --vm {} @npm", vm.name())
                           : fmt::format("agent-vm net show {}", vm.name())));
}

std::string install_script(const std::string& folder, const std::string& spec) {
  return fmt::format(
      "umask 022; cd /var/lib/agent-mcp && mkdir -p npm && cd npm || exit; "
      // What commands left that were killed with their machine.
      "find . -maxdepth 1 -name '.new-*' -mmin +60 -exec rm -rf {{}} +; "
      "mkdir {0} && cd {0} && echo $$ >pid || exit; "
      "npm install --prefix . --ignore-scripts --no-audit --no-fund --no-update-notifier "
      "--omit=dev --no-progress --loglevel=http -- {1} >&2 && rm pid && "
      "cat node_modules/.package-lock.json",
      folder, shell_quote(spec));
}

}  // namespace

Result<NpmInstall> NpmInstall::run(const VmDirectory& vm, const NpxCommand& command,
                                   const InterruptWatch& interrupts, const Deadline& deadline,
                                   const Progress& progress) {
  const SshTarget target = TRY(running_target(vm));
  TRY(policy_allows(vm, command.spec, deadline));
  // From here on there may be something to remove.
  NpmInstall install(target, TRY(random_hex(8)), command);
  std::size_t files = 0;
  Command npm;
  npm.argv = ssh_argv(target, use_kept_connection(target, "-T"));
  npm.argv.push_back(install_script(install.folder(), command.spec));
  npm.deadline = deadline;
  npm.interrupt_fd = interrupts.fd();
  npm.max_output = kMaxRecord;
  npm.on_error_line = [&](std::string_view line) {
    if (!line.starts_with(kFetched)) return;
    ++files;
    progress(fmt::format("Installing {}: {} files fetched", command.spec, files));
  };
  progress(fmt::format("Installing {}", command.spec));
  const CommandOutput output = TRY(agent_vm::run(npm));
  if (!output.ok()) {
    const bool refused = output.error.find("code E403") != std::string::npos;
    return tl::unexpected(
        Error(ErrorKind::kFailed,
              fmt::format("cannot install {} in VM {}", command.spec, vm.name()))
            .with_evidence(words_of(output.error))
            .with_hint(refused ? fmt::format("what was refused: agent-vm net log {}", vm.name())
                               : ""));
  }
  install.package_ = TRY(read_npm_record(output.out, command));
  return install;
}

NpmInstall::NpmInstall(NpmInstall&& other) noexcept
    : target_(std::move(other.target_)),
      token_(std::exchange(other.token_, "")),
      command_(std::move(other.command_)),
      package_(std::move(other.package_)) {}

NpmInstall::~NpmInstall() {
  if (token_.empty()) return;
  // Its npm may still run: nobody tells it that we have gone.
  const std::string script = fmt::format(
      "cd {0} 2>/dev/null || exit 0; "
      "if read -r p 2>/dev/null <{1}/pid; then kill -KILL -- \"-$p\"; fi; "
      "rm -rf {1} || rm -rf {1}; cd .. && rmdir npm 2>/dev/null; true",
      kNpmServers, folder());
  if (const auto removed = in_guest(target_, script, Deadline::in(kCleanup)); !removed) {
    log::warn("what was installed halfway could not be removed: {}", removed.error().message());
  }
}

std::string NpmInstall::folder() const {
  return ".new-" + token_;
}

std::string NpmInstall::name() const {
  return npm_folder(npm_package_name(command_.spec), package_.version);
}

Status NpmInstall::keep(const Deadline& deadline) {
  TRY(in_guest(target_,
               fmt::format("cd {0} && if test -e {2}; then rm -rf {1}; else mv -T {1} {2}; fi",
                           kNpmServers, folder(), shell_quote(name())),
               deadline));
  token_.clear();
  return {};
}

std::vector<std::string> NpmInstall::argv() const {
  std::vector<std::string> argv{
      fmt::format("{}/{}/node_modules/.bin/{}", kNpmServers, name(), package_.program)};
  argv.insert(argv.end(), command_.arguments.begin(), command_.arguments.end());
  return argv;
}

Status remove_unused_npm(const VmDirectory& vm, const VmConfig& config, const Deadline& deadline) {
  std::vector<std::string> used{"''"};
  for (const auto& [name, server] : config.mcp_servers) {
    const std::string package = npm_package_of(server);
    if (package.empty()) continue;
    const auto version = package.find('@', 1);
    used.push_back(
        shell_quote(npm_folder(package.substr(0, version), package.substr(version + 1))));
  }
  TRY(in_guest(
      TRY(running_target(vm)),
      fmt::format("cd {} 2>/dev/null || exit 0; for d in *; do case $d in {}) ;; "
                  "*) rm -rf -- \"$d\" ;; esac; done; cd .. && rmdir npm 2>/dev/null; true",
                  kNpmServers, join(used, " | ")),
      deadline));
  return {};
}

}  // namespace agent_vm

#include "image/npm.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/text.h"
#include "config/json_fields.h"
#include "image/host_settings.h"
#include "os/files.h"
#include "os/run.h"

namespace agent_vm {
namespace {

constexpr std::size_t kMaxLock = 64U << 20U;

Status npm(std::vector<std::string> arguments, const std::string& folder, const Limits& limits) {
  Command command;
  command.argv = {"npm"};
  command.argv.insert(command.argv.end(), std::make_move_iterator(arguments.begin()),
                      std::make_move_iterator(arguments.end()));
  for (const char* option : {"--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier",
                             "--omit=dev", "--loglevel=error", "--no-progress",
                             // The lock names no host: it is to serve on machines with another one.
                             "--omit-lockfile-registry-resolved"}) {
    command.argv.emplace_back(option);
  }
  command.environment = fetch_environment();
  command.working_directory = folder;
  limits.apply_to(command);
  auto output = run_checked(command);
  if (output) return {};
  if (output.error().kind() == ErrorKind::kMissing) {
    return tl::unexpected(std::move(output).error().with_hint(
        "the image's npm packages need it on this machine: apt-get install npm"));
  }
  return tl::unexpected(std::move(output).error());
}

// Text of a JSON file in the canonical form that lock files keep: keys sorted.
Result<std::string> read_canonical(const std::string& path) {
  const std::string text = TRY(read_file(path, kMaxLock));
  const auto json = TRY(parse_json(text, path));
  return json.dump(2, ' ', true, nlohmann::json::error_handler_t::replace);
}

Status write_text(const std::string& folder, const std::string& name, std::string_view text) {
  const Fd dir = TRY(open_directory(folder));
  return write_file_atomic(dir.get(), name, text, 0644);
}

}  // namespace

Status resolve_npm(const std::vector<std::string>& specs, const std::string& folder,
                   const Limits& limits, ImageLock& lock) {
  if (specs.empty()) return {};
  TRY(write_text(folder, "package.json",
                 R"({"name": "agent-vm-image", "version": "0.0.0", "private": true})"));
  std::vector<std::string> arguments{"install", "--package-lock-only", "--save-exact"};
  arguments.insert(arguments.end(), specs.begin(), specs.end());
  TRY_CONTEXT(npm(std::move(arguments), folder, limits),
              "cannot choose the npm packages of the image");
  lock.npm_manifest = TRY(read_canonical(folder + "/package.json"));
  lock.npm_lock = TRY(read_canonical(folder + "/package-lock.json"));
  return {};
}

Status install_npm(const ImageLock& lock, const std::string& folder, const Limits& limits) {
  TRY(write_text(folder, "package.json", lock.npm_manifest));
  TRY(write_text(folder, "package-lock.json", lock.npm_lock));
  TRY_CONTEXT(npm({"ci"}, folder, limits), "cannot unpack the npm packages of the image");
  // npm's own note of what it did, which differs between its versions.
  std::error_code error;
  std::filesystem::remove(folder + "/node_modules/.package-lock.json", error);
  const auto json = TRY(parse_json(lock.npm_lock, "package-lock.json"));
  if (!json.contains("packages") || !json["packages"].is_object()) return {};
  for (const auto& [path, package] : json["packages"].items()) {
    if (package.is_object() && package.value("hasInstallScript", false)) {
      log::warn("{} has an install script, which is not run", escape_line(path));
    }
  }
  return {};
}

}  // namespace agent_vm

#include "image/lock_file.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "config/json_fields.h"
#include "config/names.h"
#include "os/sha256.h"

namespace agent_vm {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::uint64_t kSchema = 1;
constexpr std::uint64_t kMaxDebSize = 4ULL << 30;

bool is_sha256(std::string_view text) {
  return text.size() == 64 && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool consists_of(std::string_view text, std::string_view extra) {
  return !text.empty() && std::ranges::all_of(text, [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           extra.find(c) != std::string_view::npos;
  });
}

// What goes into a command line or a path later.
Status check(const LockedPackage& package) {
  TRY(valid_package_name(package.name));
  const auto refuse = [&](std::string_view what, std::string_view value) {
    return fail(ErrorKind::kInvalidInput, "package {}: {} '{}' is not acceptable", package.name,
                what, escape_line(value));
  };
  if (!consists_of(package.version, ".+-:~")) return refuse("the version", package.version);
  if (!consists_of(package.architecture, "")) {
    return refuse("the architecture", package.architecture);
  }
  if (!is_sha256(package.sha256)) return refuse("the sha256", package.sha256);
  const bool plain = consists_of(package.path, "/.+-:~_%") && package.path.starts_with("pool/") &&
                     package.path.ends_with(".deb") && package.path.find("..") == std::string::npos;
  if (!plain) return refuse("the path", package.path);
  return {};
}

Result<ImageChoice> parse_choice(JsonFields& fields) {
  ImageChoice choice;
  choice.variant = TRY(fields.text("variant"));
  choice.packages = TRY(fields.texts("packages"));
  choice.npm = TRY(fields.texts("npm"));
  TRY(fields.no_others());
  TRY(valid_image_variant(choice.variant));
  for (const auto& name : choice.packages) TRY(valid_package_name(name));
  for (const auto& spec : choice.npm) TRY(valid_npm_spec(spec));
  return choice;
}

Result<LockedPackage> parse_package(const json& object, std::string_view where) {
  JsonFields fields = TRY(JsonFields::of(object, std::string(where)));
  LockedPackage package;
  package.name = TRY(fields.text("name"));
  package.version = TRY(fields.text("version"));
  package.architecture = TRY(fields.text("architecture"));
  package.sha256 = TRY(fields.text("sha256"));
  package.size = TRY(fields.number("size", kMaxDebSize));
  package.path = TRY(fields.text("path"));
  if (fields.has("security")) package.security = TRY(fields.boolean("security"));
  TRY(fields.no_others());
  TRY(check(package));
  return package;
}

Result<ImageLock> parse_fields(const json& root, std::string_view where) {
  JsonFields fields = TRY(JsonFields::of(root, std::string(where)));
  const std::uint64_t schema =
      TRY(fields.number("schema", std::numeric_limits<std::uint32_t>::max()));
  if (schema != kSchema) {
    return tl::unexpected(
        Error(ErrorKind::kInvalidInput,
              fmt::format("{}: schema {} is not known to this version", where, schema))
            .with_hint("make the lock file again with: agent-vm image lock"));
  }
  ImageLock lock;
  lock.release = TRY(fields.text("release"));
  lock.architecture = TRY(fields.text("architecture"));
  if (!consists_of(lock.release, "") || !consists_of(lock.architecture, "")) {
    return fail(ErrorKind::kInvalidInput, "{}: strange release or architecture", where);
  }
  lock.time = TRY(fields.number("time", std::numeric_limits<std::uint32_t>::max()));
  JsonFields choice = TRY(fields.object("choice"));
  lock.choice = TRY_CONTEXT(parse_choice(choice), "{}: choice", where);
  if (!fields.has("packages") || !root["packages"].is_array() || root["packages"].empty()) {
    return fail(ErrorKind::kInvalidInput, "{}: 'packages' must be a list, and not empty", where);
  }
  for (const auto& [key, value] : root.items()) {
    if (key != "packages" && key != "npm" && key != "schema" && key != "release" &&
        key != "architecture" && key != "time" && key != "choice") {
      return fail(ErrorKind::kInvalidInput, "{}: unknown key '{}'", where, escape_line(key));
    }
  }
  for (const auto& object : root["packages"]) {
    lock.packages.push_back(TRY_CONTEXT(parse_package(object, "packages"), "{}", where));
  }
  const auto by_name = [](const auto& a, const auto& b) { return a.name < b.name; };
  if (!std::ranges::is_sorted(lock.packages, by_name) ||
      std::ranges::adjacent_find(lock.packages, {}, &LockedPackage::name) != lock.packages.end()) {
    return fail(ErrorKind::kInvalidInput,
                "{}: the packages must be sorted by name, each of them once", where);
  }
  if (root.contains("npm")) {
    const json& npm = root["npm"];
    if (!npm.is_object() || npm.size() != 2 || !npm.contains("package.json") ||
        !npm.contains("package-lock.json")) {
      return fail(ErrorKind::kInvalidInput,
                  "{}: 'npm' must hold package.json and package-lock.json", where);
    }
    lock.npm_manifest = npm["package.json"].dump(2);
    lock.npm_lock = npm["package-lock.json"].dump(2);
  }
  // A variant may name packages of npm's, too.
  if (lock.npm_lock.empty() && !lock.choice.npm.empty()) {
    return fail(ErrorKind::kInvalidInput,
                "{}: 'npm' is missing, and 'choice' asks for packages of npm's", where);
  }
  return lock;
}

}  // namespace

std::string to_json_text(const ImageLock& lock) {
  ordered_json root = {{"schema", kSchema},
                       {"release", lock.release},
                       {"architecture", lock.architecture},
                       {"time", lock.time},
                       {"choice",
                        {{"variant", lock.choice.variant},
                         {"packages", lock.choice.packages},
                         {"npm", lock.choice.npm}}}};
  auto& packages = root["packages"] = ordered_json::array();
  for (const auto& package : lock.packages) {
    ordered_json object = {{"name", package.name},
                           {"version", package.version},
                           {"architecture", package.architecture},
                           {"sha256", package.sha256},
                           {"size", package.size},
                           {"path", package.path}};
    if (package.security) object["security"] = true;
    packages.push_back(std::move(object));
  }
  if (!lock.npm_lock.empty()) {
    // Sorted keys: npm's order has no meaning.
    root["npm"] = {{"package.json", json::parse(lock.npm_manifest)},
                   {"package-lock.json", json::parse(lock.npm_lock)}};
  }
  return root.dump(1, ' ', true, ordered_json::error_handler_t::replace) + "\n";
}

Result<ImageLock> parse_lock(std::string_view json_text, std::string_view where) {
  const auto invalid = [](Error error) {
    return tl::unexpected(std::move(error).with_kind(ErrorKind::kInvalidInput));
  };
  const auto root = parse_json(json_text, where);
  if (!root) return invalid(root.error());
  auto lock = parse_fields(*root, where);
  if (!lock) return invalid(lock.error());
  return lock;
}

std::string hash_of(const ImageLock& lock) {
  return sha256_hex(to_json_text(lock));
}

}  // namespace agent_vm

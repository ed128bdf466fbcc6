#include "image/manifest.h"

#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "config/json_fields.h"

namespace agent_vm {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::uint64_t kSchema = 1;
constexpr std::array kFiles{"initrd.img", "root.img", "vmlinuz"};

Result<ImageFile> parse_file(JsonFields fields) {
  ImageFile file;
  file.bytes = TRY(fields.number("bytes", std::numeric_limits<std::int64_t>::max()));
  file.sha256 = TRY(fields.text("sha256"));
  TRY(fields.no_others());
  return file;
}

}  // namespace

std::string to_json_text(const Manifest& manifest) {
  ordered_json root = {{"schema", kSchema},
                       {"key", manifest.key},
                       {"recipe_hash", manifest.recipe_hash},
                       {"lock_hash", manifest.lock_hash},
                       {"created_at", manifest.created_at},
                       {"release", manifest.release},
                       {"kernel_release", manifest.kernel_release},
                       {"choice",
                        {{"variant", manifest.choice.variant},
                         {"packages", manifest.choice.packages},
                         {"npm", manifest.choice.npm}}}};
  for (const auto& [name, file] : manifest.files) {
    root["files"][name] = {{"bytes", file.bytes}, {"sha256", file.sha256}};
  }
  root["packages"] = manifest.packages;
  root["npm"] = manifest.npm;
  return root.dump(1, ' ', true, ordered_json::error_handler_t::replace) + "\n";
}

Result<Manifest> parse_manifest(std::string_view json_text, std::string_view where) {
  const json root = TRY(parse_json(json_text, where));
  JsonFields fields = TRY(JsonFields::of(root, std::string(where)));
  const std::uint64_t schema =
      TRY(fields.number("schema", std::numeric_limits<std::uint32_t>::max()));
  if (schema != kSchema) return fail("{}: schema {} is not known to this version", where, schema);
  Manifest manifest;
  manifest.key = TRY(fields.text("key"));
  manifest.recipe_hash = TRY(fields.text("recipe_hash"));
  manifest.lock_hash = TRY(fields.text("lock_hash"));
  manifest.created_at = TRY(fields.text("created_at"));
  manifest.release = TRY(fields.text("release"));
  manifest.kernel_release = TRY(fields.text("kernel_release"));
  JsonFields choice = TRY(fields.object("choice"));
  manifest.choice.variant = TRY(choice.text("variant"));
  manifest.choice.packages = TRY(choice.texts("packages"));
  manifest.choice.npm = TRY(choice.texts("npm"));
  TRY(choice.no_others());
  JsonFields files = TRY(fields.object("files"));
  for (const char* name : kFiles) {
    JsonFields file = TRY(files.object(name));
    manifest.files[name] = TRY(parse_file(std::move(file)));
  }
  TRY(files.no_others());
  manifest.packages = TRY(fields.text_map("packages"));
  manifest.npm = TRY(fields.text_map("npm"));
  TRY(fields.no_others());
  return manifest;
}

}  // namespace agent_vm

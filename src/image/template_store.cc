#include "image/template_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "os/files.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr const char* kFolder = "templates";
constexpr const char* kManifest = "template.json";
constexpr std::size_t kMaxManifest = 65536;
constexpr std::array kFiles{template_files::kPages, template_files::kMap, template_files::kDevices,
                            template_files::kRoot};

std::string draft_name(const std::string& key) {
  return ".new-" + key;
}

Result<ImageFiles> parse_manifest_of(const std::string& key, const std::string& text) {
  const json value = json::parse(text, nullptr, false);
  if (!value.is_object() || value.value("schema", json()) != 1 || value.value("key", json()) != key)
    return fail("{} is not of template {}", kManifest, key);
  ImageFiles files;
  for (const auto* name : kFiles) {
    const json file = value.value("files", json::object()).value(name, json());
    if (!file.is_object() || !file.contains("bytes") || !file["bytes"].is_number_unsigned() ||
        !file.contains("sha256") || !file["sha256"].is_string())
      return fail("{} does not say what {} is", kManifest, name);
    files[name] = {file["bytes"].get<std::uint64_t>(), file["sha256"].get<std::string>()};
  }
  return files;
}

}  // namespace

Result<Template> TemplateStore::open(const std::string& key) const {
  const Fd image = TRY(open_directory(image_));
  const auto dir =
      open_beneath(image.get(), fmt::format("{}/{}", kFolder, key), O_RDONLY | O_DIRECTORY);
  if (!dir) return fail(ErrorKind::kNotFound, "there is no template {}", key);
  const auto files =
      TRY(parse_manifest_of(key, TRY(read_file_at(dir->get(), kManifest, kMaxManifest))));
  Template found{.key = key,
                 .pages = TRY(open_beneath(dir->get(), template_files::kPages, O_RDONLY)),
                 .map = TRY(open_beneath(dir->get(), template_files::kMap, O_RDONLY)),
                 .devices = TRY(open_beneath(dir->get(), template_files::kDevices, O_RDONLY)),
                 .root = TRY(open_beneath(dir->get(), template_files::kRoot, O_RDONLY))};
  TRY(verify_files(dir->get(), files));
  return found;
}

Result<std::optional<TemplateDraft>> TemplateStore::begin(const std::string& key) const {
  const Fd image = TRY(open_directory(image_));
  TRY(make_directory_at(image.get(), kFolder, 0700));
  Fd parent = TRY(open_beneath(image.get(), kFolder, O_RDONLY | O_DIRECTORY));
  const std::string name = draft_name(key);
  TRY(make_directory_at(parent.get(), name, 0700));
  Fd directory = TRY(open_beneath(parent.get(), name, O_RDONLY | O_DIRECTORY));
  auto lock = TRY(DirectoryLock::try_acquire(directory.get()));
  // Its last maker may have finished it, and given it its name, between the two lines above.
  if (!lock || !exists_at(parent.get(), name)) return std::nullopt;
  for (const auto& left : TRY(list_directory(directory.get())))
    TRY(remove_tree_at(directory.get(), left));
  return TemplateDraft(key, std::move(parent), std::move(directory), std::move(*lock));
}

Result<Fd> TemplateDraft::create(const char* name) const {
  return open_beneath(directory_.get(), name, O_RDWR | O_CREAT | O_EXCL, 0600);
}

Status TemplateDraft::commit() {
  json files = json::object();
  ImageFiles measured;
  for (const auto* name : kFiles) {
    const Fd file = TRY(open_beneath(directory_.get(), name, O_RDONLY));
    // On disk before its hash says that it is right.
    if (::fdatasync(file.get()) != 0) return fail_errno(errno, "cannot write {}", name);
    measured[name] = TRY(measure_file(directory_.get(), name));
    files[name] = {{"bytes", measured[name].bytes}, {"sha256", measured[name].sha256}};
  }
  const json manifest = {{"schema", 1}, {"key", key_}, {"files", std::move(files)}};
  TRY(write_file_atomic(directory_.get(), kManifest, manifest.dump(2) + "\n", 0600));
  TRY(remember_verified(directory_.get(), measured));
  TRY(remove_tree_at(parent_.get(), key_));
  if (::renameat(parent_.get(), draft_name(key_).c_str(), parent_.get(), key_.c_str()) != 0)
    return fail_errno(errno, "cannot name the template");
  return {};
}

}  // namespace agent_vm

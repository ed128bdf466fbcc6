#include "image/template_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "image/sealed_folder.h"
#include "os/files.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr const char* kFolder = "templates";
constexpr const char* kManifest = "template.json";

std::string draft_name(const std::string& key) {
  return ".new-" + key;
}

}  // namespace

Result<Template> TemplateStore::open(const std::string& key) const {
  const Fd image = TRY(open_directory(image_));
  const auto dir =
      open_beneath(image.get(), fmt::format("{}/{}", kFolder, key), O_RDONLY | O_DIRECTORY);
  if (!dir) return fail(ErrorKind::kNotFound, "there is no template {}", key);
  SealedFolder folder = TRY(open_sealed_folder(dir->get(), kManifest));
  if (folder.about.value("key", json()) != key) return fail("it is not template {}", key);
  Template found{.key = key};
  for (auto [name, file] : {std::pair(template_files::kPages, &found.pages),
                            std::pair(template_files::kMap, &found.map),
                            std::pair(template_files::kDevices, &found.devices),
                            std::pair(template_files::kRoot, &found.root)}) {
    *file = std::move(folder.files[name]);
    if (!*file) return fail("{} does not name {}", kManifest, name);
  }
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
  TRY(seal_folder(directory_.get(), kManifest, {{"key", key_}},
                  {template_files::kPages, template_files::kMap, template_files::kDevices,
                   template_files::kRoot}));
  TRY(remove_tree_at(parent_.get(), key_));
  if (::renameat(parent_.get(), draft_name(key_).c_str(), parent_.get(), key_.c_str()) != 0)
    return fail_errno(errno, "cannot name the template");
  return {};
}

}  // namespace agent_vm

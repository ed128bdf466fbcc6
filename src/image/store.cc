#include "image/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/log.h"
#include "base/text.h"
#include "os/files.h"
#include "os/sha256.h"

namespace agent_vm {
namespace {

constexpr std::size_t kMaxManifest = 8U << 20U;
constexpr const char* kUsers = "users";
// Of a VM: names the image that its disk is an overlay on.
constexpr const char* kDiskRecord = "disk.json";
constexpr std::size_t kMaxRecord = 1U << 20U;

std::string environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): single-threaded
  return value == nullptr ? "" : value;
}

tl::unexpected<Error> damaged(const std::string& key, std::string_view why) {
  return tl::unexpected(
      Error(ErrorKind::kFailed, fmt::format("the image {} is damaged: {}", key, why))
          .with_hint("remove it with `agent-vm image prune`, or build it again "
                     "with `agent-vm image build`"));
}

// `text`: of the image's manifest.json.
Result<Manifest> parse_manifest_of(std::string_view text, const std::string& key) {
  Manifest manifest = TRY(parse_manifest(text, "manifest.json"));
  if (manifest.key != key)
    return fail("manifest.json is of the image {}", escape_line(manifest.key));
  return manifest;
}

Result<Manifest> read_manifest(int dir, const std::string& key) {
  return parse_manifest_of(TRY(read_file_at(dir, "manifest.json", kMaxManifest)), key);
}

}  // namespace

Status valid_image_key(std::string_view key) {
  const bool ok = key.size() >= 8 && key.size() <= 64 && std::ranges::all_of(key, [](char c) {
                    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                  });
  if (ok) return {};
  return fail(ErrorKind::kInvalidInput, "'{}' is not the key of an image", escape_line(key));
}

Result<ImageStore> ImageStore::of_user() {
  std::string cache = environment("XDG_CACHE_HOME");
  if (!cache.starts_with('/')) {
    const std::string home = environment("HOME");
    if (!home.starts_with('/')) return fail(ErrorKind::kInvalidInput, "HOME is not set");
    cache = home + "/.cache";
  }
  return ImageStore(cache + "/agent-vm");
}

Status ImageStore::make_folders() const {
  for (const auto& folder : {root_, images_folder(), packages_folder(), bases_folder()}) {
    TRY(open_private_directory(folder));
  }
  return {};
}

Result<DirectoryLock> ImageStore::lock(const Deadline& deadline) const {
  const Fd dir = TRY(open_private_directory(root_));
  return DirectoryLock::acquire(dir.get(), deadline);
}

Result<Image> ImageStore::open_image(const std::string& key) const {
  TRY(valid_image_key(key));
  const std::string directory = images_folder() + "/" + key;
  const auto images = open_directory(images_folder());
  const auto dir = images ? open_beneath(images->get(), key, O_RDONLY | O_DIRECTORY)
                          : Result<Fd>(tl::unexpected(images.error()));
  if (!dir) {
    return tl::unexpected(Error(ErrorKind::kNotFound, fmt::format("there is no image {}", key))
                              .with_hint("build it with: agent-vm image build"));
  }
  auto manifest = read_manifest(dir->get(), key);
  if (!manifest) return damaged(key, manifest.error().message());
  if (const auto right = verify_files(dir->get(), manifest->files); !right)
    return damaged(key, right.error().message());
  return Image{.key = key,
               .directory = directory,
               .root_bytes = manifest->files.at("root.img").bytes,
               .manifest = std::move(*manifest)};
}

Result<std::vector<ImageStore::Entry>> ImageStore::list() const {
  std::vector<Entry> entries;
  const auto images = open_directory(images_folder());
  if (!images) return entries;
  const std::vector<std::string> names = TRY(list_directory(images->get()));
  for (const auto& name : names) {
    if (!valid_image_key(name)) continue;
    Entry entry{.key = name};
    entry.disk_bytes = tree_size_at(images->get(), name).value_or(0);
    const auto dir = open_beneath(images->get(), name, O_RDONLY | O_DIRECTORY);
    auto manifest =
        dir ? read_manifest(dir->get(), name) : Result<Manifest>(tl::unexpected(dir.error()));
    if (manifest) {
      entry.manifest = std::move(*manifest);
    } else {
      entry.problem = manifest.error().message();
    }
    entries.push_back(std::move(entry));
  }
  std::ranges::stable_sort(entries, std::ranges::greater(), [](const Entry& entry) {
    return entry.manifest ? entry.manifest->created_at : std::string();
  });
  return entries;
}

Result<std::optional<Image>> ImageStore::find_image(const std::string& recipe_hash) const {
  const auto images = open_directory(images_folder());
  if (!images) return std::nullopt;
  std::vector<Manifest> candidates;
  for (const auto& name : TRY(list_directory(images->get()))) {
    const auto dir = open_beneath(images->get(), name, O_RDONLY | O_DIRECTORY);
    if (!valid_image_key(name) || !dir) continue;
    // Manifests are long, and every start comes here: only what may be it is parsed.
    const auto text = read_file_at(dir->get(), "manifest.json", kMaxManifest);
    if (!text || text->find(recipe_hash) == std::string::npos) continue;
    auto manifest = parse_manifest_of(*text, name);
    if (manifest && manifest->recipe_hash == recipe_hash)
      candidates.push_back(std::move(*manifest));
  }
  std::ranges::stable_sort(candidates, std::ranges::greater(), &Manifest::created_at);
  std::optional<Error> damage;  // of the newest
  for (const auto& candidate : candidates) {
    auto image = open_image(candidate.key);
    if (image) return std::optional(std::move(*image));
    log::warn("{}", image.error().message());
    if (!damage) damage = image.error();
  }
  if (damage) return tl::unexpected(std::move(*damage));
  return std::nullopt;
}

Status ImageStore::add_user(const std::string& key, const std::string& vm) const {
  TRY(valid_image_key(key));
  const Fd images = TRY(open_directory(images_folder()));
  const Fd dir = TRY(open_beneath(images.get(), key, O_RDONLY | O_DIRECTORY));
  TRY(make_directory_at(dir.get(), kUsers, 0700));
  const Fd users = TRY(open_beneath(dir.get(), kUsers, O_RDONLY | O_DIRECTORY));
  return write_file_atomic(users.get(), sha256_hex(vm), vm, 0600);
}

Result<std::vector<std::string>> ImageStore::users(const std::string& key) const {
  TRY(valid_image_key(key));
  std::vector<std::string> vms;
  const auto images = open_directory(images_folder());
  if (!images) return vms;
  const auto users = open_beneath(images->get(), key + "/" + kUsers, O_RDONLY | O_DIRECTORY);
  if (!users) return vms;
  const std::vector<std::string> names = TRY(list_directory(users->get()));
  for (const auto& name : names) {
    std::string vm = TRY(read_file_at(users->get(), name, kMaxRecord));
    // Destroyed VMs, and those with a new disk, are none any more.
    const auto record = read_file(vm + "/" + kDiskRecord, kMaxRecord);
    if (record && record->find("\"" + key + "\"") != std::string::npos) {
      vms.push_back(std::move(vm));
    }
  }
  std::ranges::sort(vms);
  return vms;
}

Result<ImageStore::Pruned> ImageStore::prune(const std::set<std::string>& in_use, bool dry_run,
                                             const Deadline& deadline) const {
  Pruned pruned;
  const auto root = open_directory(root_);
  if (!root) return pruned;
  const DirectoryLock held = TRY(lock(deadline));
  const auto remove_all = [&](const std::string& folder, auto&& keep) -> Status {
    const auto dir = open_beneath(root->get(), folder, O_RDONLY | O_DIRECTORY);
    if (!dir) return {};
    const std::vector<std::string> names = TRY(list_directory(dir->get()));
    for (const auto& name : names) {
      if (keep(name)) continue;
      pruned.freed_bytes += tree_size_at(dir->get(), name).value_or(0);
      if (!dry_run) TRY(remove_tree_at(dir->get(), name));
      if (valid_image_key(name) && folder == "images") pruned.keys.push_back(name);
    }
    return {};
  };
  const auto keep_none = [](const std::string&) { return false; };
  std::set<std::string> kept = in_use;
  const std::vector<Entry> entries = TRY(list());
  for (const auto& entry : entries) {
    if (!TRY(users(entry.key)).empty()) kept.insert(entry.key);
  }
  TRY(remove_all("images", [&](const std::string& name) { return kept.contains(name); }));
  TRY(remove_all("packages", keep_none));
  TRY(remove_all("bases", keep_none));
  return pruned;
}

Result<Image> open_image(const std::string& key) {
  const ImageStore store = TRY(ImageStore::of_user());
  return store.open_image(key);
}

}  // namespace agent_vm

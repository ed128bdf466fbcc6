#include "image/builder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/text.h"
#include "config/json_fields.h"
#include "config/names.h"
#include "image/apt.h"
#include "image/apt_sources.h"
#include "image/bootstrap.h"
#include "image/compose.h"
#include "image/npm.h"
#include "image/scratch.h"
#include "os/files.h"
#include "os/sha256.h"

namespace agent_vm {
namespace {

constexpr const char* kArchitecture = "amd64";
constexpr std::size_t kKeyDigits = 20;
constexpr std::string_view kUnfinished = ".unfinished-";

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

// A folder that is removed unless it is kept: an image before it is whole.
class Unfinished {
 public:
  static Result<Unfinished> make(const std::string& folder, const std::string& key) {
    Fd dir = TRY(open_directory(folder));
    const std::vector<std::string> names = TRY(list_directory(dir.get()));
    // Of builds that were killed; the caller holds the lock, so none of them runs.
    for (const auto& name : names) {
      if (name.starts_with(kUnfinished)) TRY(remove_tree_at(dir.get(), name));
    }
    const std::string name = std::string(kUnfinished) + key;
    TRY(make_directory_at(dir.get(), name, 0700));
    return Unfinished(std::move(dir), folder, name);
  }
  Unfinished(Unfinished&& other) noexcept
      : dir_(std::move(other.dir_)),
        folder_(std::move(other.folder_)),
        name_(std::exchange(other.name_, {})) {}
  Unfinished& operator=(Unfinished&&) = delete;
  ~Unfinished() {
    if (!name_.empty()) static_cast<void>(remove_tree_at(dir_.get(), name_));
  }

  std::string path() const { return folder_ + "/" + name_; }

  // Everything on the disk first, then the name: what has a name is whole, whatever happens.
  Status keep_as(const std::string& name) {
    const Fd own = TRY(open_beneath(dir_.get(), name_, O_RDONLY | O_DIRECTORY));
    const std::vector<std::string> files = TRY(list_directory(own.get()));
    for (const auto& file : files) {
      const Fd fd = TRY(open_beneath(own.get(), file, O_RDONLY));
      if (::fsync(fd.get()) != 0) return fail_errno(errno, "cannot write {} to the disk", file);
    }
    if (::fsync(own.get()) != 0) return fail_errno(errno, "cannot write {} to the disk", path());
    // A damaged one may be there.
    TRY(remove_tree_at(dir_.get(), name));
    if (::renameat(dir_.get(), name_.c_str(), dir_.get(), name.c_str()) != 0) {
      return fail_errno(errno, "cannot name {}", path());
    }
    name_.clear();
    if (::fsync(dir_.get()) != 0) return fail_errno(errno, "cannot write {} to the disk", folder_);
    return {};
  }

 private:
  Unfinished(Fd dir, std::string folder, std::string name)
      : dir_(std::move(dir)), folder_(std::move(folder)), name_(std::move(name)) {}
  Fd dir_;
  std::string folder_;
  std::string name_;
};

Status check_lock(const Recipe& recipe, const ImageLock& lock) {
  const auto stale = [&](std::string_view why) {
    return tl::unexpected(
        Error(ErrorKind::kInvalidInput, fmt::format("the lock file does not fit: {}", why))
            .with_hint("make a newer one with: agent-vm image lock"));
  };
  if (lock.choice != recipe.choice) return stale("it was made for another choice of packages");
  if (lock.release != kImageRelease || lock.architecture != kArchitecture) {
    return stale(fmt::format("it is for {} {}", lock.release, lock.architecture));
  }
  for (const auto& name : recipe.packages) {
    const auto found = std::ranges::lower_bound(lock.packages, name, {}, &LockedPackage::name);
    if (found == lock.packages.end() || found->name != name) {
      return stale(fmt::format("it lacks the package {}", name));
    }
  }
  if (recipe.npm.empty() && !lock.npm_lock.empty()) {
    return stale("it holds packages of npm's that nothing asks for");
  }
  const auto npm = lock.npm_manifest.empty() ? nlohmann::json::object()
                                             : TRY(parse_json(lock.npm_manifest, "package.json"));
  const auto chosen = npm.value("dependencies", nlohmann::json::object());
  for (const auto& spec : recipe.npm) {
    const std::string name = npm_package_name(spec);
    if (!chosen.contains(name)) return stale(fmt::format("it lacks the npm package {}", name));
  }
  return {};
}

// The package installer, another user, reads what we write in the scratch folder.
class OpenUmask {
 public:
  OpenUmask() : old_(::umask(022)) {}
  ~OpenUmask() { ::umask(old_); }
  OpenUmask(const OpenUmask&) = delete;
  OpenUmask& operator=(const OpenUmask&) = delete;

 private:
  mode_t old_;
};

class Build {
 public:
  Build(const Recipe& recipe, const BuildOptions& options, Progress& progress)
      : recipe_(recipe), options_(options), progress_(progress) {}

  Status start() {
    scratch_.emplace(TRY(Scratch::make()));
    return {};
  }

  Result<ImageLock> resolve() {
    progress_.step("Choosing packages");
    PrivateApt apt = TRY(make_apt());
    TRY(apt.update());
    progress_.fraction(0.5);
    ImageLock lock{
        .release = kImageRelease, .architecture = kArchitecture, .choice = recipe_.choice};
    lock.time = TRY(apt.lists_time());
    lock.packages = TRY(apt.resolve(recipe_.packages));
    const std::string folder = TRY(scratch_->folder("npm-lock"));
    TRY(resolve_npm(recipe_.npm, folder, options_.limits, lock));
    return lock;
  }

  // The tar file of the installed packages, from the store when the same were installed before.
  Result<std::string> packages_tar(const ImageStore& store, const ImageLock& lock) {
    nlohmann::ordered_json what = {{"options", bootstrap_options_id()}, {"time", lock.time}};
    for (const auto& package : lock.packages) what["packages"].push_back(package.sha256);
    const std::string name = sha256_hex(what.dump());
    const std::string path = fmt::format("{}/{}.tar", store.bases_folder(), name);
    if (TRY(is_intact(path))) return path;

    progress_.step("Fetching packages");
    PrivateApt apt = TRY(make_apt());
    TRY(apt.fetch(lock.packages, store.packages_folder(), progress_));
    progress_.step("Installing packages");
    const std::string fresh = scratch_->path() + "/packages.tar";
    TRY(install_packages(lock, store.packages_folder(), *scratch_, options_.limits, progress_,
                         fresh));
    TRY(keep_base(store, fresh, name));
    return path;
  }

  Result<Image> compose(const ImageStore& store, const ImageLock& lock, const std::string& tar) {
    const std::string key = image_key(recipe_, lock);
    std::string npm_folder;
    if (!lock.npm_lock.empty()) {
      progress_.step("Unpacking npm packages");
      npm_folder = TRY(scratch_->folder("npm"));
      TRY(install_npm(lock, npm_folder, options_.limits));
    }
    progress_.step("Writing the image");
    Unfinished unfinished = TRY(Unfinished::make(store.images_folder(), key));
    const Composition composition = TRY(compose_image({
        .recipe = &recipe_,
        .packages_tar = tar,
        .npm_folder = npm_folder,
        .time = lock.time,
        .identity = key,
        .output_directory = unfinished.path(),
        .progress =
            [&](double fraction) {
              progress_.fraction(fraction);
              return options_.limits.check();
            },
    }));
    progress_.step("Verifying the image");
    Manifest manifest{.key = key,
                      .recipe_hash = recipe_.hash,
                      .lock_hash = hash_of(lock),
                      .created_at = now_utc(),
                      .release = lock.release,
                      .kernel_release = composition.kernel_release,
                      .choice = recipe_.choice,
                      .packages = composition.package_versions,
                      .npm = TRY(npm_versions(lock))};
    const Fd dir = TRY(open_directory(unfinished.path()));
    for (const char* name : {"initrd.img", "root.img", "vmlinuz"}) {
      const Fd file = TRY(open_beneath(dir.get(), name, O_RDONLY));
      struct stat status {};
      if (::fstat(file.get(), &status) != 0) return fail_errno(errno, "cannot examine {}", name);
      manifest.files[name] = {.bytes = static_cast<std::uint64_t>(status.st_size),
                              .sha256 = TRY(sha256_hex_of_file(file.get()))};
      TRY(options_.limits.check());
    }
    TRY(write_file_atomic(dir.get(), "lock.json", to_json_text(lock), 0644));
    TRY(write_file_atomic(dir.get(), "manifest.json", to_json_text(manifest), 0644));
    TRY(unfinished.keep_as(key));
    return store.open_image(key);
  }

 private:
  Result<PrivateApt> make_apt() {
    const std::vector<AptSource> machine = TRY(read_machine_sources(options_.etc_apt));
    std::vector<AptSource> debian = TRY(debian_sources(machine, kImageRelease));
    return PrivateApt::make(*scratch_, std::move(debian), options_.limits);
  }

  static Result<bool> is_intact(const std::string& path) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    const auto expected = read_file(path + ".sha256", 64);
    if (!file || !expected) return false;
    const std::string actual = TRY(sha256_hex_of_file(file.get()));
    if (actual == *expected) return true;
    log::warn("{} is damaged: it is made again", path);
    return false;
  }

  // Keeps one, the newest: they are large, and serve whoever changes the rest of a recipe.
  static Status keep_base(const ImageStore& store, const std::string& fresh,
                          const std::string& name) {
    const Fd dir = TRY(open_directory(store.bases_folder()));
    const std::vector<std::string> old = TRY(list_directory(dir.get()));
    for (const auto& file : old) TRY(remove_tree_at(dir.get(), file));
    const std::string path = fmt::format("{}/{}.tar", store.bases_folder(), name);
    std::error_code error;
    std::filesystem::rename(fresh, path, error);
    if (error) {  // another file system
      std::filesystem::copy_file(fresh, path, error);
      if (error) return fail("cannot keep {}: {}", path, error.message());
    }
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return fail_errno(errno, "cannot read {}", path);
    const std::string hash = TRY(sha256_hex_of_file(file.get()));
    return write_file_atomic(dir.get(), name + ".tar.sha256", hash, 0600);
  }

  static Result<std::map<std::string, std::string>> npm_versions(const ImageLock& lock) {
    std::map<std::string, std::string> versions;
    if (lock.npm_lock.empty()) return versions;
    const auto json = TRY(parse_json(lock.npm_lock, "package-lock.json"));
    if (!json.contains("packages") || !json["packages"].is_object()) return versions;
    for (const auto& [path, package] : json["packages"].items()) {
      const auto name = path.rfind("node_modules/");
      if (name == std::string::npos || !package.is_object()) continue;
      versions[path.substr(name + 13)] = package.value("version", "");
    }
    return versions;
  }

  const OpenUmask umask_;
  const Recipe& recipe_;
  const BuildOptions& options_;
  Progress& progress_;
  std::optional<Scratch> scratch_;
};

}  // namespace

std::string image_key(const Recipe& recipe, const ImageLock& lock) {
  return sha256_hex(recipe.hash + " " + hash_of(lock)).substr(0, kKeyDigits);
}

Result<ImageLock> make_lock(const Recipe& recipe, const BuildOptions& options, Progress& progress) {
  Build build(recipe, options, progress);
  TRY(build.start());
  return build.resolve();
}

Result<BuildResult> build_image(const ImageStore& store, const Recipe& recipe,
                                const BuildOptions& options, Progress& progress) {
  if (options.lock) {
    TRY(check_lock(recipe, *options.lock));
  } else if (!options.update) {
    auto existing = store.find_image(recipe.hash);
    if (!existing) log::warn("{}: it is built again", existing.error().message());
    if (existing && *existing) return BuildResult{std::move(**existing), true};
  }
  TRY(check_bootstrap());
  Build build(recipe, options, progress);
  TRY(build.start());
  const ImageLock lock = options.lock ? *options.lock : TRY(build.resolve());
  if (auto existing = store.open_image(image_key(recipe, lock))) {
    return BuildResult{std::move(*existing), true};
  }
  const std::string tar = TRY(build.packages_tar(store, lock));
  Image image = TRY(build.compose(store, lock, tar));
  return BuildResult{std::move(image), false};
}

}  // namespace agent_vm

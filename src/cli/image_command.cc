#include <fcntl.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "base/log.h"
#include "base/text.h"
#include "cli/build_progress.h"
#include "cli/exit_code.h"
#include "cli/verbs.h"
#include "image/builder.h"
#include "image/store.h"
#include "launch/prepare.h"
#include "os/files.h"
#include "os/interrupt.h"

namespace agent_vm {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kMaxLock = 64U << 20U;

struct Options {
  ImageChoice choice;
  bool choice_given = false;
  std::string lock_file;
  std::string output;
  std::string key;
  bool update = false;
  bool dry_run = false;
};

// Which VMs have a disk on which image: names of those in this state directory, paths of others.
Result<std::map<std::string, std::vector<std::string>>> users_of_images(const Context& context,
                                                                        const ImageStore& store) {
  std::map<std::string, std::vector<std::string>> users;
  std::set<std::string> here;
  const auto state = context.state();
  if (!state && state.error().kind() != ErrorKind::kNotFound) return tl::unexpected(state.error());
  if (state) {
    const std::vector<std::string> names = TRY(state->names());
    for (const auto& name : names) {
      const auto vm = TRY(state->vm(name));
      here.insert(vm.path());
      // A record that cannot be read may name any image: removing one would be a guess.
      const auto record = TRY(read_disk_record(vm));
      if (record) users[record->image_key].push_back(name);
    }
  }
  const std::vector<ImageStore::Entry> entries = TRY(store.list());
  for (const auto& entry : entries) {
    const std::vector<std::string> vms = TRY(store.users(entry.key));
    for (const auto& vm : vms) {
      if (!here.contains(vm)) users[entry.key].push_back(vm);
    }
  }
  return users;
}

// An image by its key or by the beginning of it, if only one has that.
Result<std::string> find_key(const ImageStore& store, const std::string& prefix) {
  const std::vector<ImageStore::Entry> entries = TRY(store.list());
  std::vector<std::string> matches;
  for (const auto& entry : entries) {
    if (entry.key == prefix) return prefix;
    if (!prefix.empty() && entry.key.starts_with(prefix)) matches.push_back(entry.key);
  }
  if (matches.size() == 1) return matches.front();
  if (matches.size() > 1) {
    return fail(ErrorKind::kInvalidInput, "'{}' is the beginning of several keys: {}",
                escape_line(prefix), join(matches, ", "));
  }
  return tl::unexpected(
      Error(ErrorKind::kNotFound, fmt::format("there is no image '{}'", escape_line(prefix)))
          .with_hint("see: agent-vm image list"));
}

ordered_json to_json(const ImageChoice& choice) {
  return {{"variant", choice.variant}, {"packages", choice.packages}, {"npm", choice.npm}};
}

std::string describe(const ImageChoice& choice) {
  std::string text = choice.variant;
  if (!choice.packages.empty()) text += " + " + join(choice.packages, ", ");
  if (!choice.npm.empty()) text += " + npm: " + join(choice.npm, ", ");
  return text;
}

std::string age_of(const std::string& created_at) {
  std::tm parts{};
  if (::strptime(created_at.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts) == nullptr) return "?";
  const std::time_t seconds = std::max<std::time_t>(std::time(nullptr) - ::timegm(&parts), 0);
  constexpr std::time_t kMinute = 60;
  constexpr std::time_t kHour = 60 * kMinute;
  constexpr std::time_t kDay = 24 * kHour;
  if (seconds >= kDay) return fmt::format("{}d", seconds / kDay);
  if (seconds >= kHour) return fmt::format("{}h", seconds / kHour);
  return fmt::format("{}m", seconds / kMinute);
}

Result<ImageLock> read_lock(const std::string& path) {
  const auto text = read_file(path, kMaxLock);
  if (!text) {
    return tl::unexpected(Error(text.error()).within("--lock").with_kind(ErrorKind::kInvalidInput));
  }
  return parse_lock(*text, path);
}

Result<Recipe> recipe_of(const Options& options, const std::optional<ImageLock>& lock) {
  ImageChoice choice = options.choice;
  // A lock file says what it is of; flags that say something else are a mistake.
  if (lock && !options.choice_given) choice = lock->choice;
  const RecipeSource source = TRY(RecipeSource::of_this_program());
  return load_recipe(source, choice);
}

// Waits for another build, and says so.
Result<DirectoryLock> lock_store(const ImageStore& store, const Deadline& deadline,
                                 Progress& progress) {
  auto lock = store.lock(Deadline::in(std::chrono::milliseconds(1)));
  if (lock || lock.error().kind() != ErrorKind::kTimeout) return lock;
  progress.note("Waiting for another image build to end");
  lock = store.lock(deadline);
  if (lock || lock.error().kind() != ErrorKind::kTimeout) return lock;
  return fail(ErrorKind::kTimeout, "another image build is still running");
}

Result<BuildResult> build_with_progress(const ImageStore& store, const Recipe& recipe,
                                        BuildOptions options, const Deadline& deadline) {
  ConsoleProgress progress(ConsoleProgress::on_terminal());
  const DirectoryLock held = TRY(lock_store(store, deadline, progress));
  // From here on Ctrl-C is an error like any other, so that everything is cleaned up.
  const InterruptWatch interrupt = TRY(InterruptWatch::start());
  options.limits = {.interrupt_fd = interrupt.fd(), .deadline = deadline};
  return build_image(store, recipe, options, progress);
}

Result<int> build(Context& context, const Options& options) {
  const Deadline deadline = TRY(context.deadline());
  const ImageStore store = TRY(ImageStore::of_user());
  TRY(store.make_folders());
  BuildOptions build_options{.update = options.update};
  if (!options.lock_file.empty()) build_options.lock = TRY(read_lock(options.lock_file));
  const Recipe recipe = TRY(recipe_of(options, build_options.lock));

  const BuildResult result = TRY(build_with_progress(store, recipe, build_options, deadline));
  const Image& image = result.image;
  context.out.json({{"key", image.key},
                    {"directory", image.directory},
                    {"reused", result.reused},
                    {"choice", to_json(image.manifest.choice)},
                    {"root_sha256", image.manifest.files.at("root.img").sha256},
                    {"kernel_sha256", image.manifest.files.at("vmlinuz").sha256},
                    {"initramfs_sha256", image.manifest.files.at("initrd.img").sha256}});
  context.out.print("{} image {} ({})", result.reused ? "There is" : "Built",
                    context.out.paint(Colour::kBold, image.key),
                    escape_line(describe(image.manifest.choice)));
  context.out.print("  Folder: {}", escape_line(image.directory));
  if (result.reused && !options.update && options.lock_file.empty()) {
    context.out.print("  For newer packages: agent-vm image build --update");
  }
  return kExitOk;
}

Result<int> lock(Context& context, const Options& options) {
  const Deadline deadline = TRY(context.deadline());
  const Recipe recipe = TRY(recipe_of(options, std::nullopt));
  ConsoleProgress progress(ConsoleProgress::on_terminal());
  const InterruptWatch interrupt = TRY(InterruptWatch::start());
  const BuildOptions build_options{
      .limits = {.interrupt_fd = interrupt.fd(), .deadline = deadline}};
  const ImageLock made = TRY(make_lock(recipe, build_options, progress));
  const std::string text = to_json_text(made);
  if (options.output.empty()) {
    TRY(write_all(1, text));
    return kExitOk;
  }
  const std::filesystem::path path = std::filesystem::absolute(options.output);
  const Fd dir = TRY(open_directory(path.parent_path()));
  TRY(write_file_atomic(dir.get(), path.filename(), text, 0644));
  context.out.json({{"file", path.string()}, {"packages", made.packages.size()}});
  context.out.print("Wrote {} with {} packages", escape_line(path.string()), made.packages.size());
  return kExitOk;
}

Result<int> list(Context& context) {
  const ImageStore store = TRY(ImageStore::of_user());
  const std::vector<ImageStore::Entry> entries = TRY(store.list());
  auto users = TRY(users_of_images(context, store));
  auto json = ordered_json::array();
  std::vector<std::vector<std::string>> table{{"KEY", "AGE", "SIZE", "KERNEL", "CONTENT", "VMS"}};
  for (const auto& entry : entries) {
    const auto& vms = users[entry.key];
    ordered_json object = {{"key", entry.key}, {"disk_bytes", entry.disk_bytes}, {"used_by", vms}};
    if (entry.manifest) {
      const Manifest& manifest = *entry.manifest;
      object["created_at"] = manifest.created_at;
      object["kernel_release"] = manifest.kernel_release;
      object["choice"] = to_json(manifest.choice);
      object["recipe_hash"] = manifest.recipe_hash;
      table.push_back({entry.key, age_of(manifest.created_at), format_size(entry.disk_bytes),
                       manifest.kernel_release, describe(manifest.choice), join(vms, ", ")});
    } else {
      object["problem"] = entry.problem;
      table.push_back({entry.key, "?", format_size(entry.disk_bytes), "?",
                       "damaged: " + entry.problem, join(vms, ", ")});
    }
    json.push_back(std::move(object));
  }
  context.out.json(json);
  if (entries.empty()) {
    context.out.print("No images. Build one with: agent-vm image build");
  } else {
    context.out.table(table);
  }
  return kExitOk;
}

void print_versions(Output& out, std::string_view heading,
                    const std::map<std::string, std::string>& versions) {
  if (versions.empty()) return;
  out.print("");
  out.print("{} ({})", heading, versions.size());
  for (const auto& [name, version] : versions) {
    out.print("  {} {}", escape_line(name), escape_line(version));
  }
}

Result<int> show(Context& context, const Options& options) {
  const ImageStore store = TRY(ImageStore::of_user());
  const std::string key = TRY(find_key(store, options.key));
  const Image image = TRY(store.open_image(key));
  auto users = TRY(users_of_images(context, store));
  ordered_json json = ordered_json::parse(to_json_text(image.manifest));
  json["directory"] = image.directory;
  json["used_by"] = users[key];
  context.out.json(json);

  const Manifest& manifest = image.manifest;
  Output& out = context.out;
  out.print("Image       {}", out.paint(Colour::kBold, key));
  out.print("Content     {}", escape_line(describe(manifest.choice)));
  out.print("Debian      {}, kernel {}", escape_line(manifest.release),
            escape_line(manifest.kernel_release));
  out.print("Built       {}", escape_line(manifest.created_at));
  out.print("Recipe      {}", escape_line(manifest.recipe_hash));
  out.print("Lock        {}", escape_line(manifest.lock_hash));
  out.print("Folder      {}", escape_line(image.directory));
  out.print("Used by     {}", users[key].empty() ? "no VM" : escape_line(join(users[key], ", ")));
  for (const auto& [name, file] : manifest.files) {
    out.print("{:<11} {}  sha256 {}", name, format_size(file.bytes), escape_line(file.sha256));
  }
  print_versions(out, "Packages", manifest.packages);
  print_versions(out, "npm packages", manifest.npm);
  return kExitOk;
}

Result<int> prune(Context& context, const Options& options) {
  const Deadline deadline = TRY(context.deadline());
  const ImageStore store = TRY(ImageStore::of_user());
  const auto users = TRY(users_of_images(context, store));
  std::set<std::string> in_use;
  for (const auto& [key, names] : users) in_use.insert(key);
  const ImageStore::Pruned pruned = TRY(store.prune(in_use, options.dry_run, deadline));
  context.out.json({{"removed", pruned.keys},
                    {"freed_bytes", pruned.freed_bytes},
                    {"dry_run", options.dry_run}});
  const std::string_view verb = options.dry_run ? "Would remove" : "Removed";
  for (const auto& key : pruned.keys) context.out.print("{} image {}", verb, key);
  context.out.print("{} {} in all", options.dry_run ? "Would free" : "Freed",
                    format_size(pruned.freed_bytes));
  return kExitOk;
}

void add_choice(CLI::App& verb, const std::shared_ptr<Options>& options) {
  const auto given = [options](auto&&...) { options->choice_given = true; };
  verb.add_option("--variant", options->choice.variant, "which sets of packages, joined by +")
      ->type_name("NAME")
      ->each(given);
  verb.add_option("--package", options->choice.packages,
                  "another package of Debian; can be repeated")
      ->type_name("NAME")
      ->each(given);
  verb.add_option("--npm", options->choice.npm, "a package of npm; can be repeated")
      ->type_name("SPEC")
      ->each(given);
}

void add_build(CLI::App& image, Context& context) {
  const auto options = std::make_shared<Options>();
  CLI::App* verb = add_verb(image, "build", "build an image, unless it is there",
                            "  agent-vm image build\n"
                            "  agent-vm image build --variant build-tools+language-servers\n"
                            "  agent-vm image build --package postgresql --npm typescript@5.4.5\n"
                            "  agent-vm image build --lock agent-vm.lock");
  add_choice(*verb, options);
  verb->add_option("--lock", options->lock_file, "build exactly what this lock file says")
      ->type_name("FILE");
  verb->add_flag("--update", options->update, "with the newest packages");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return build(context, *options); });
}

void add_lock(CLI::App& image, Context& context) {
  const auto options = std::make_shared<Options>();
  CLI::App* verb = add_verb(image, "lock", "choose the newest packages, and write them down",
                            "  agent-vm image lock --output agent-vm.lock\n"
                            "  agent-vm image lock --variant build-tools");
  add_choice(*verb, options);
  verb->add_option("-o,--output", options->output, "instead of stdout")->type_name("FILE");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return lock(context, *options); });
}

}  // namespace

void add_image(CLI::App& app, Context& context) {
  CLI::App* image = add_verb(app, "image", "the guests' images: build, list, show, lock, prune",
                             "  agent-vm image build\n"
                             "  agent-vm image list\n"
                             "  agent-vm image show KEY\n"
                             "  agent-vm image prune");
  image->require_subcommand(1);
  add_build(*image, context);

  CLI::App* list_verb = add_verb(*image, "list", "all images, with their size and their VMs", "");
  add_json_flag(*list_verb, context);
  on_run(*list_verb, context, [&context] { return list(context); });

  const auto show_options = std::make_shared<Options>();
  CLI::App* show_verb =
      add_verb(*image, "show", "what an image is made of; verifies its hashes", "");
  show_verb->add_option("KEY", show_options->key, "of the image, or the beginning of it")
      ->required();
  add_json_flag(*show_verb, context);
  on_run(*show_verb, context, [&context, show_options] { return show(context, *show_options); });

  add_lock(*image, context);

  const auto prune_options = std::make_shared<Options>();
  CLI::App* prune_verb =
      add_verb(*image, "prune", "remove the images that no VM uses, and what builds keep", "");
  prune_verb->add_flag("--dry-run", prune_options->dry_run, "only say what would be removed");
  add_json_flag(*prune_verb, context);
  on_run(*prune_verb, context,
         [&context, prune_options] { return prune(context, *prune_options); });
}

}  // namespace agent_vm

#include "image/recipe.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "config/names.h"
#include "image/bootstrap.h"
#include "os/files.h"
#include "os/sha256.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;

// Changes with the meaning of a recipe: how it is turned into an image, in code.
constexpr int kComposition = 3;
constexpr std::size_t kMaxText = 1U << 20U;
constexpr std::size_t kMaxProgram = 256U << 20U;
constexpr std::uint32_t kDev = 1000;
// The programs that go into the guest's /usr/lib/agent-vm.
constexpr std::array kGuestPrograms{"agent-lsp", "agent-mcp", "agent-vm-git-ssh",
                                    "agent-vm-identity"};
constexpr const char* kInit = "agent-vm-init";

void sort_unique(std::vector<std::string>& list) {
  std::ranges::sort(list);
  const auto rest = std::ranges::unique(list);
  list.erase(rest.begin(), rest.end());
}

struct Contents {
  std::vector<std::string> packages;
  std::vector<std::string> npm;
};

// Adds what a list names: a package of Debian's, or "npm" and a package of npm's, in each line.
Status add_list(const std::string& path, Contents& contents) {
  constexpr std::string_view kNpm = "npm ";
  const std::string text = TRY(read_file(path, kMaxText));
  for (const auto& line : split_lines(text)) {
    const auto name = trim(std::string_view(line).substr(0, line.find('#')));
    if (name.empty()) continue;
    if (name.starts_with(kNpm)) {
      const auto spec = trim(name.substr(kNpm.size()));
      TRY_CONTEXT(valid_npm_spec(spec), "{}", path);
      contents.npm.emplace_back(spec);
    } else {
      TRY_CONTEXT(valid_package_name(name), "{}", path);
      contents.packages.emplace_back(name);
    }
  }
  return {};
}

Result<std::vector<std::string>> known_variants(const std::string& folder) {
  std::vector<std::string> names{"default"};
  const Fd dir = TRY(open_directory(folder));
  const std::vector<std::string> files = TRY(list_directory(dir.get()));
  for (const auto& file : files) {
    if (file.ends_with(".list") && file != "base.list") {
      names.push_back(file.substr(0, file.size() - 5));
    }
  }
  std::ranges::sort(names.begin() + 1, names.end());
  return names;
}

// The variants of a choice, without "default", which adds nothing.
std::vector<std::string> variants_of(const std::string& variant) {
  std::vector<std::string> names = split(variant, '+');
  std::erase(names, "default");
  sort_unique(names);
  return names;
}

Result<Contents> contents_of(const std::string& folder, const ImageChoice& choice) {
  Contents contents;
  TRY(add_list(folder + "/base.list", contents));
  const std::vector<std::string> known = TRY(known_variants(folder));
  for (const auto& variant : variants_of(choice.variant)) {
    if (std::ranges::find(known, variant) == known.end()) {
      return tl::unexpected(
          Error(ErrorKind::kInvalidInput,
                fmt::format("there is no image variant '{}'", escape_line(variant)))
              .with_hint("known variants: " + join(known, ", ") + "; '+' joins several"));
    }
    TRY(add_list(fmt::format("{}/{}.list", folder, variant), contents));
  }
  for (const auto& name : choice.packages) {
    TRY_CONTEXT(valid_package_name(name), "image packages");
    contents.packages.push_back(name);
  }
  // Who asks for a package of npm's by name decides which version it is.
  for (const auto& spec : choice.npm) {
    TRY_CONTEXT(valid_npm_spec(spec), "image npm");
    std::erase_if(contents.npm, [&](const std::string& other) {
      return npm_package_name(other) == npm_package_name(spec);
    });
  }
  contents.npm.insert(contents.npm.end(), choice.npm.begin(), choice.npm.end());
  sort_unique(contents.packages);
  sort_unique(contents.npm);
  return contents;
}

// Modes as git keeps them, and not those of a checkout under some umask.
Status add_host_file(Tree& tree, const std::string& path, const fs::path& host) {
  struct stat status {};
  if (::lstat(host.c_str(), &status) != 0) return fail_errno(errno, "cannot read {}", host.c_str());
  Node node;
  if (path.starts_with("/home/dev/")) node.uid = node.gid = kDev;
  if (S_ISDIR(status.st_mode)) {
    node.type = NodeType::kDirectory;
    node.mode = 0755;
  } else if (S_ISLNK(status.st_mode)) {
    std::error_code error;
    node.type = NodeType::kSymlink;
    node.mode = 0777;
    node.target = fs::read_symlink(host, error).string();
    if (error) return fail("cannot read the link {}: {}", host.string(), error.message());
  } else if (S_ISREG(status.st_mode)) {
    std::string content = TRY(read_file(host.string(), kMaxText));
    node.mode = (status.st_mode & 0100U) != 0 ? 0755 : 0644;
    node.size = content.size();
    node.content = std::move(content);
  } else {
    return fail("{} is neither a file nor a folder nor a link", host.string());
  }
  return tree.put(path, std::move(node));
}

Status add_files(Tree& tree, const std::string& folder) {
  std::error_code error;
  std::vector<fs::path> paths;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error)) {
    paths.push_back(at->path());
  }
  if (error) return fail("cannot read {}: {}", folder, error.message());
  std::ranges::sort(paths);  // parents first
  for (const auto& path : paths) {
    TRY(add_host_file(tree, path.string().substr(folder.size()), path));
  }
  return {};
}

Result<std::string> read_guest_program(const RecipeSource& source, const std::string& name) {
  auto content = read_file(source.guest_programs_folder + "/" + name, kMaxProgram);
  if (content) return content;
  return tl::unexpected(
      Error(ErrorKind::kMissing, fmt::format("the guest program {} is missing from this "
                                             "installation: {}",
                                             name, content.error().message()))
          .with_hint("install agent-vm as a whole, or build everything: ninja"));
}

std::string hash_of(const Recipe& recipe) {
  // JSON, so that no two recipes can spell the same text.
  nlohmann::ordered_json all = {{"composition", kComposition},
                                {"bootstrap", bootstrap_options_id()},
                                {"variant", recipe.choice.variant},
                                {"packages", recipe.packages},
                                {"npm", recipe.npm},
                                {"init", sha256_hex(recipe.init)}};
  auto& rules = all["rules"] = nlohmann::ordered_json::array();
  for (const auto& rule : recipe.rules) {
    rules.push_back({std::string(1, rule.type), rule.path, rule.arguments});
  }
  auto& files = all["files"] = nlohmann::ordered_json::array();
  for (const auto& [path, node] : recipe.files.nodes()) {
    const auto* text = std::get_if<std::string>(&node.content);
    files.push_back({path, static_cast<int>(node.type), node.mode, node.uid, node.gid, node.target,
                     text != nullptr ? sha256_hex(*text) : ""});
  }
  return sha256_hex(all.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace

Result<RecipeSource> RecipeSource::of_this_program() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (error) return fail("cannot find this program's folder: {}", error.message());
  // bin/agent-vm, or libexec/agent-vm/agent-vm-supervisor.
  for (fs::path prefix = self.parent_path(); prefix.has_relative_path();
       prefix = prefix.parent_path()) {
    const fs::path image = prefix / "share/agent-vm/image";
    if (!fs::exists(image / "tree.conf", error)) continue;
    return RecipeSource{.image_folder = image.string(),
                        .guest_programs_folder = (prefix / "libexec/agent-vm/guest").string()};
  }
  return tl::unexpected(Error(ErrorKind::kMissing,
                              fmt::format("share/agent-vm/image is not beside {}", self.string()))
                            .with_hint("install agent-vm as a whole"));
}

Result<Recipe> load_recipe(const RecipeSource& source, const ImageChoice& choice) {
  Recipe recipe;
  recipe.choice = choice;
  sort_unique(recipe.choice.packages);
  sort_unique(recipe.choice.npm);
  const std::vector<std::string> variants = variants_of(choice.variant);
  recipe.choice.variant = variants.empty() ? ImageChoice().variant : join(variants, "+");
  Contents contents = TRY(contents_of(source.image_folder + "/packages", recipe.choice));
  recipe.packages = std::move(contents.packages);
  recipe.npm = std::move(contents.npm);

  const std::string rules = TRY(read_file(source.image_folder + "/tree.conf", kMaxText));
  recipe.rules = TRY(parse_tree_rules(rules, "tree.conf"));
  TRY(add_files(recipe.files, source.image_folder + "/files"));
  for (const char* name : kGuestPrograms) {
    std::string program = TRY(read_guest_program(source, name));
    const std::string path = fmt::format("/usr/lib/agent-vm/{}", name);
    TRY(recipe.files.make_parents(path));
    Node node{.mode = 0755, .size = program.size(), .content = std::move(program)};
    TRY(recipe.files.put(path, std::move(node)));
  }
  recipe.init = TRY(read_guest_program(source, kInit));
  recipe.hash = hash_of(recipe);
  return recipe;
}

}  // namespace agent_vm

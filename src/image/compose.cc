#include "image/compose.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>

#include "base/fd.h"
#include "base/text.h"
#include "config/names.h"
#include "image/archive.h"
#include "image/ext4.h"
#include "image/initramfs.h"
#include "os/files.h"

namespace agent_vm {
namespace {

namespace fs = std::filesystem;

// What the initramfs loads. Besides the disk's, the drivers that every VM needs at once: loading
// them here is cheaper than letting udev find each of them.
const std::vector<std::string> kModules{"virtio_pci", "virtio_blk", "ext4",    "virtio_console",
                                        "virtio_net", "virtio_rng", "virtiofs"};
constexpr const char* kModulesFolder = "/usr/lib/modules/";
constexpr const char* kNpmFolder = "/usr/local/lib/agent-vm-npm";
constexpr std::array kAccountFiles{"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"};

Status write_new_file(const std::string& path, std::string_view content) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, "cannot make {}", path);
  return write_all(fd.get(), content);
}

// The one kernel of the image.
Result<std::string> kernel_release(const Tree& tree) {
  std::vector<std::string> releases;
  const std::string prefix = "/boot/vmlinuz-";
  for (auto at = tree.nodes().lower_bound(prefix);
       at != tree.nodes().end() && at->first.starts_with(prefix); ++at) {
    releases.push_back(at->first.substr(prefix.size()));
  }
  if (releases.size() != 1) {
    return fail("the packages brought {} kernels, and an image has one{}{}", releases.size(),
                releases.empty() ? "" : ": ", join(releases, ", "));
  }
  return releases.front();
}

Status hold_in_memory(Tree& tree, const std::string& path, std::string content) {
  Node node = *tree.find(path);
  node.size = content.size();
  node.content = std::move(content);
  return tree.put(path, std::move(node));
}

Status write_initramfs(const ComposeInput& input, const std::string& release,
                       const std::map<std::string, std::string>& members) {
  const std::string folder = kModulesFolder + release + "/";
  const std::vector<std::string> paths = TRY(modules_in_order(
      kModules, members.at(folder + "modules.dep"), members.at(folder + "modules.builtin")));
  std::set<std::string> wanted;
  for (const auto& path : paths) wanted.insert(folder + path);
  auto contents = TRY(read_tar_members(input.packages_tar, wanted));
  std::vector<InitramfsModule> modules;
  for (const auto& path : paths) {
    modules.push_back({fs::path(path).filename().string(), std::move(contents[folder + path])});
  }
  return write_new_file(input.output_directory + "/initrd.img",
                        make_initramfs(input.recipe->init, modules));
}

// What `npm install -g` puts on the PATH: the programs of the packages that were asked for.
Status link_npm_programs(Tree& tree, const std::vector<std::string>& specs) {
  const std::string bin = std::string(kNpmFolder) + "/node_modules/.bin";
  for (const auto& path : tree.below(bin)) {
    const Node& node = *tree.find(path);
    const bool wanted = std::ranges::any_of(specs, [&](const std::string& spec) {
      return node.target.starts_with("../" + npm_package_name(spec) + "/");
    });
    if (!wanted) continue;
    const std::string program = "/usr/local/bin" + path.substr(bin.size());
    TRY(tree.put(program, Node{.type = NodeType::kSymlink, .target = path}));
  }
  return {};
}

// Adds the folder as npm left it; owners and modes become the image's.
Status add_npm(Tree& tree, const std::string& folder, const std::vector<std::string>& specs) {
  TRY(tree.make_parents(kNpmFolder));
  TRY(tree.put(kNpmFolder, Node{.type = NodeType::kDirectory, .mode = 0755}));
  std::error_code error;
  std::vector<fs::directory_entry> entries;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error)) {
    entries.push_back(*at);
  }
  if (error) return fail("cannot read {}: {}", folder, error.message());
  std::ranges::sort(entries);
  for (const auto& entry : entries) {
    const std::string relative = entry.path().string().substr(folder.size());
    Node node;
    if (entry.is_symlink()) {
      node.type = NodeType::kSymlink;
      node.target = fs::read_symlink(entry.path()).string();
    } else if (entry.is_directory()) {
      node.type = NodeType::kDirectory;
      node.mode = 0755;
    } else {
      const bool runs = (entry.status().permissions() & fs::perms::owner_exec) != fs::perms::none;
      node.mode = runs ? 0755 : 0644;
      node.size = entry.file_size();
      node.content = HostFile{entry.path().string()};
    }
    TRY(tree.put(kNpmFolder + relative, std::move(node)));
  }
  return link_npm_programs(tree, specs);
}

Status add_recipe_files(Tree& tree, const Tree& files) {
  for (const auto& [path, node] : files.nodes()) {
    const Node* old = tree.find(path);
    // A folder that the packages made keeps its owner and mode.
    if (old != nullptr && old->type == NodeType::kDirectory && node.type == NodeType::kDirectory) {
      continue;
    }
    TRY(tree.put(path, node));
  }
  return {};
}

}  // namespace

Result<Composition> compose_image(const ComposeInput& input) {
  Tree tree = TRY(read_tar_tree(input.packages_tar));
  Composition composition;
  composition.kernel_release = TRY(kernel_release(tree));
  const std::string kernel = "/boot/vmlinuz-" + composition.kernel_release;
  const std::string modules = kModulesFolder + composition.kernel_release;
  std::set<std::string> wanted{kernel, modules + "/modules.dep", modules + "/modules.builtin",
                               "/var/lib/dpkg/status"};
  wanted.insert(kAccountFiles.begin(), kAccountFiles.end());
  auto members = TRY(read_tar_members(input.packages_tar, wanted));

  TRY(write_new_file(input.output_directory + "/vmlinuz", members.at(kernel)));
  TRY(write_initramfs(input, composition.kernel_release, members));
  composition.package_versions = parse_dpkg_status(members.at("/var/lib/dpkg/status"));

  constexpr std::uint64_t kDay = 86400;
  members["/etc/shadow"] = with_change_day(members.at("/etc/shadow"), input.time / kDay);
  for (const char* path : kAccountFiles) TRY(hold_in_memory(tree, path, members.at(path)));
  TRY(apply_tree_rules(input.recipe->rules, "tree.conf", tree));
  TRY(add_recipe_files(tree, input.recipe->files));
  if (!input.npm_folder.empty()) TRY(add_npm(tree, input.npm_folder, input.recipe->npm));
  TRY(write_ext4(tree, input.packages_tar, input.output_directory + "/root.img",
                 {.time = input.time, .identity = input.identity, .progress = input.progress}));
  return composition;
}

std::map<std::string, std::string> parse_dpkg_status(std::string_view status) {
  std::map<std::string, std::string> versions;
  std::string package;
  std::string version;
  bool installed = false;
  const auto finish = [&] {
    if (!package.empty() && installed) versions[package] = version;
    package.clear();
    version.clear();
    installed = false;
  };
  for (const auto& line : split_lines(status)) {
    if (line.empty()) finish();
    if (line.starts_with("Package: ")) package = line.substr(9);
    if (line.starts_with("Version: ")) version = line.substr(9);
    if (line.starts_with("Status: ")) installed = line.ends_with(" installed");
  }
  finish();
  return versions;
}

std::string with_change_day(std::string_view shadow, std::uint64_t day) {
  std::string text;
  for (const auto& line : split_lines(shadow)) {
    auto fields = split(line, ':');
    if (fields.size() > 2 && !fields[2].empty()) fields[2] = std::to_string(day);
    text += join(fields, ":") + "\n";
  }
  return text;
}

}  // namespace agent_vm

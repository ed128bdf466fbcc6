#include "support/image.h"

#include <fcntl.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "os/files.h"
#include "os/sha256.h"
#include "support/options.h"
#include "support/program.h"
#include "support/repository.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::string& original() {
  static std::string directory;
  return directory;
}

// Where the image is that a VM would start from: the launch plan says it. Returns the reason when
// there is none.
std::string find_image(const std::vector<std::string>& environment, std::string& directory) {
  const std::string work = options().root + "/image-probe";
  if (!fs::exists(work)) {
    fs::create_directories(work);
    make_repository(work + "/repo");
    const Ran created = run_program({options().agent_vm, "--state-dir", work + "/state", "create",
                                     work + "/repo", "--branch", "probe", "--network", "off"},
                                    {.environment = environment});
    if (!created.ok()) return created.describe();
  }
  const Ran planned = run_program({options().agent_vm, "--state-dir", work + "/state", "start",
                                   "repo-probe", "--dry-run", "--json"},
                                  {.environment = environment});
  const json plan = json::parse(planned.out, nullptr, false);
  if (!planned.ok() || !plan.is_object()) return planned.describe();
  for (const auto& child : plan["children"]) {
    for (const auto& mount : child["jail"]["mounts"]) {
      if (mount.value("target", "") == "/kernel")
        directory = fs::path(mount.value("source", "")).parent_path().string();
    }
  }
  return directory.empty() ? "the launch plan names no kernel" : "";
}

// Puts the helper into the root file system of an image and its new hash into the manifest.
std::string add_helper(const std::string& directory) {
  const auto helper = fs::path(options().agent_vm).parent_path().parent_path() /
                      "libexec/agent-vm/test/become-root";
  const std::string commands = directory + "/debugfs-commands";
  const std::string target = "/usr/lib/agent-vm/become-root";
  write_file(commands, fmt::format("write {0} {1}\nset_inode_field {1} mode 0104755\n"
                                   "set_inode_field {1} uid 0\nset_inode_field {1} gid 0\n",
                                   helper.string(), target));
  const std::string image = directory + "/root.img";
  const Ran edited = run_program({"debugfs", "-w", "-f", commands, image});
  const Ran seen = run_program({"debugfs", "-R", "stat " + target, image});
  fs::remove(commands);
  if (seen.out.find("Mode:  04755") == std::string::npos)
    return "cannot put become-root into the image (debugfs is of e2fsprogs): " + edited.describe() +
           seen.describe();
  const Fd file(::open(image.c_str(), O_RDONLY | O_CLOEXEC));
  const auto hash = sha256_hex_of_file(file.get());
  if (!hash) return hash.error().message();
  auto manifest = nlohmann::ordered_json::parse(read_text(directory + "/manifest.json"));
  manifest["files"]["root.img"]["sha256"] = *hash;
  write_file(directory + "/manifest.json", manifest.dump(1) + "\n");
  return "";
}

ImageCache make_cache() {
  ImageCache cache;
  cache.problem = find_image({}, original());
  if (!cache.problem.empty()) return cache;
  const std::string path = options().root + "/cache";
  cache.directory = path + "/agent-vm/images/" + fs::path(original()).filename().string();
  fs::create_directories(cache.directory);
  fs::permissions(path, fs::perms::owner_all);
  fs::permissions(path + "/agent-vm", fs::perms::owner_all);
  fs::permissions(path + "/agent-vm/images", fs::perms::owner_all);
  fs::permissions(cache.directory, fs::perms::owner_all);
  for (const auto* file : {"root.img", "vmlinuz", "initrd.img", "manifest.json", "lock.json"}) {
    const Ran copied = run_program({"cp", "--reflink=auto", "--sparse=always",
                                    original() + "/" + file, cache.directory + "/" + file});
    if (!copied.ok()) {
      cache.problem = copied.describe();
      return cache;
    }
  }
  cache.problem = add_helper(cache.directory);
  if (!cache.problem.empty()) return cache;
  // Accepted, and from now on known to agent-vm, which hashes an image and probes KVM only once.
  std::string accepted;
  cache.problem = find_image({"XDG_CACHE_HOME=" + path}, accepted);
  if (cache.problem.empty() && accepted != cache.directory)
    cache.problem = "agent-vm would start from " + accepted + " instead of " + cache.directory;
  if (cache.problem.empty()) cache.path = path;
  return cache;
}

}  // namespace

const ImageCache& image_cache() {
  static const ImageCache cache = make_cache();
  return cache;
}

const std::string& original_image() {
  return original();
}

}  // namespace agent_vm::test

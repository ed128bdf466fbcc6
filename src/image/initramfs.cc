#include "image/initramfs.h"

#include <sys/stat.h>

#include <algorithm>

#include "base/text.h"

namespace agent_vm {
namespace {

// The "newc" format of cpio(5), as the kernel reads it.
class CpioWriter {
 public:
  void directory(std::string_view name) { entry(name, S_IFDIR | 0755U, {}); }
  void file(std::string_view name, unsigned permissions, std::string_view content) {
    entry(name, S_IFREG | permissions, content);
  }
  std::string finish() {
    entry("TRAILER!!!", 0, {});
    return std::move(bytes_);
  }

 private:
  void entry(std::string_view name, unsigned mode, std::string_view content) {
    const unsigned links = S_ISDIR(mode) ? 2 : 1;
    bytes_ += "070701";
    const auto field = [&](std::size_t value) { bytes_ += fmt::format("{:08X}", value); };
    for (const std::size_t value :
         {std::size_t{inode_++}, std::size_t{mode}, std::size_t{0}, std::size_t{0},
          std::size_t{links}, std::size_t{0}, content.size(), std::size_t{0}, std::size_t{0},
          std::size_t{0}, std::size_t{0}, name.size() + 1, std::size_t{0}}) {
      field(value);
    }
    bytes_.append(name).push_back('\0');
    pad();
    bytes_.append(content);
    pad();
  }
  void pad() { bytes_.append((4 - bytes_.size() % 4) % 4, '\0'); }

  std::string bytes_;
  unsigned inode_ = 1;
};

std::string module_name(std::string_view path) {
  const auto slash = path.rfind('/');
  if (slash != std::string_view::npos) path.remove_prefix(slash + 1);
  std::string name(path.substr(0, path.find('.')));
  std::ranges::replace(name, '-', '_');
  return name;
}

struct ModuleGraph {
  std::map<std::string, std::vector<std::string>> needs;  // path -> paths
  std::map<std::string, std::string> paths;               // name -> path
  std::set<std::string> builtin;                          // names
};

Status visit(const ModuleGraph& graph, const std::string& path, std::set<std::string>& seen,
             std::vector<std::string>& order) {
  if (!seen.insert(path).second) return {};
  const auto found = graph.needs.find(path);
  if (found == graph.needs.end()) return fail("modules.dep does not list {}", escape_line(path));
  for (const auto& need : found->second) TRY(visit(graph, need, seen, order));
  order.push_back(path);
  return {};
}

}  // namespace

Result<std::vector<std::string>> modules_in_order(const std::vector<std::string>& names,
                                                  std::string_view modules_dep,
                                                  std::string_view modules_builtin) {
  ModuleGraph graph;
  for (const auto& line : split_lines(modules_dep)) {
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string path = line.substr(0, colon);
    graph.paths[module_name(path)] = path;
    auto& needs = graph.needs[path];
    for (auto& need : split(trim(std::string_view(line).substr(colon + 1)), ' ')) {
      if (!need.empty()) needs.push_back(std::move(need));
    }
  }
  for (const auto& line : split_lines(modules_builtin)) graph.builtin.insert(module_name(line));

  std::set<std::string> seen;
  std::vector<std::string> order;
  for (const auto& name : names) {
    const std::string wanted = module_name(name);
    if (const auto found = graph.paths.find(wanted); found != graph.paths.end()) {
      TRY(visit(graph, found->second, seen, order));
    } else if (!graph.builtin.contains(wanted)) {
      return fail("the guest's kernel has no module {}", name);
    }
  }
  return order;
}

std::string make_initramfs(std::string_view init, const std::vector<InitramfsModule>& modules) {
  CpioWriter cpio;
  for (const char* name : {"dev", "proc", "root", "sys"}) cpio.directory(name);
  cpio.file("init", 0755, init);
  std::string list;
  for (const auto& module : modules) {
    cpio.file(module.name, 0644, module.content);
    list.append("/").append(module.name).append("\n");
  }
  cpio.file("modules.list", 0644, list);
  return cpio.finish();
}

}  // namespace agent_vm

#include "image/tree.h"

#include <algorithm>

#include "base/text.h"

namespace agent_vm {
namespace {

std::string parent_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

}  // namespace

const Node* Tree::find(const std::string& path) const {
  const auto found = nodes_.find(path);
  return found == nodes_.end() ? nullptr : &found->second;
}

Status Tree::put(const std::string& path, Node node) {
  if (path.size() < 2 || path[0] != '/') {
    return fail(ErrorKind::kInternal, "'{}' is no path in an image", escape_line(path));
  }
  const std::string parent = parent_of(path);
  if (!parent.empty()) {
    const Node* above = find(parent);
    if (above == nullptr || above->type != NodeType::kDirectory) {
      return fail("cannot put {} into the image: {} is {}", escape_line(path), escape_line(parent),
                  above == nullptr ? "missing" : "not a directory");
    }
  }
  const Node* old = find(path);
  if (old != nullptr && old->type == NodeType::kDirectory && node.type != NodeType::kDirectory) {
    return fail("cannot replace the directory {} of the image by something else",
                escape_line(path));
  }
  nodes_.insert_or_assign(path, std::move(node));
  return {};
}

Status Tree::make_parents(const std::string& path) {
  for (auto slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    if (find(parent) == nullptr) {
      TRY(put(parent, Node{.type = NodeType::kDirectory, .mode = 0755}));
    }
  }
  return {};
}

std::vector<std::string> Tree::below(const std::string& path) const {
  std::vector<std::string> paths;
  if (nodes_.contains(path)) paths.push_back(path);
  const std::string prefix = path + "/";
  for (auto at = nodes_.lower_bound(prefix); at != nodes_.end() && at->first.starts_with(prefix);
       ++at) {
    paths.push_back(at->first);
  }
  return paths;
}

std::size_t Tree::remove(std::string_view glob) {
  // Only what starts with the pattern's literal beginning can match it.
  const std::string literal(glob.substr(0, glob.find_first_of("*?")));
  std::vector<std::string> matches;
  for (auto at = nodes_.lower_bound(literal); at != nodes_.end() && at->first.starts_with(literal);
       ++at) {
    if (glob_match(glob, at->first)) matches.push_back(at->first);
  }
  Map removed;
  for (const auto& match : matches) {
    for (const auto& path : below(match)) removed.insert(nodes_.extract(path));
  }
  promote_hard_links(removed);
  return removed.size();
}

void Tree::promote_hard_links(const Map& removed) {
  const bool any_file = std::ranges::any_of(
      removed, [](const auto& entry) { return entry.second.type == NodeType::kFile; });
  if (!any_file) return;
  std::map<std::string, std::string> heirs;  // removed file -> its first remaining link
  for (auto& [path, node] : nodes_) {
    if (node.type != NodeType::kHardLink) continue;
    const auto lost = removed.find(node.target);
    if (lost == removed.end()) continue;
    const auto [heir, first] = heirs.emplace(node.target, path);
    if (first) {
      node = lost->second;
    } else {
      node.target = heir->second;
    }
  }
}

Status Tree::set_mode(const std::string& path, mode_t mode) {
  const auto found = nodes_.find(path);
  if (found == nodes_.end()) return fail("{} is not in the image", escape_line(path));
  if (found->second.type == NodeType::kSymlink || found->second.type == NodeType::kHardLink) {
    return fail("{} is a link: its target has the mode", escape_line(path));
  }
  found->second.mode = mode;
  return {};
}

bool glob_match(std::string_view pattern, std::string_view path) {
  std::size_t p = 0;
  std::size_t s = 0;
  std::size_t star = std::string_view::npos;
  std::size_t star_path = 0;
  while (s < path.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_path = s;
    } else if (p < pattern.size() &&
               (pattern[p] == path[s] || (pattern[p] == '?' && path[s] != '/'))) {
      ++p;
      ++s;
    } else if (star != std::string_view::npos && path[star_path] != '/') {
      // The last star takes one byte more.
      p = star + 1;
      s = ++star_path;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

Result<std::string> normal_path(std::string_view path) {
  std::string normal;
  for (const auto& part : split(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..")
      return fail(ErrorKind::kInvalidInput, "the path '{}' leaves its root", escape_line(path));
    normal.append("/").append(part);
  }
  return normal;
}

}  // namespace agent_vm

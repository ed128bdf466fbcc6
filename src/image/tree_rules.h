// image/tree.conf: what is added to, and taken from, the files of the packages.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/tree.h"

namespace agent_vm {

struct TreeRule {
  char type = 0;  // u, g, d, f, L, R or m
  std::string path;
  std::vector<std::string> arguments;
  std::size_t line = 0;  // for errors
};

// Refuses unknown types, wrong numbers of arguments, relative paths and modes that are not octal,
// and says in which line. The format is described in the file itself.
Result<std::vector<TreeRule>> parse_tree_rules(std::string_view text, std::string_view file_name);

// Applies the rules in order. /etc/passwd, group, shadow and gshadow of `tree` must have their
// content in memory when a `u` rule is among them.
Status apply_tree_rules(const std::vector<TreeRule>& rules, std::string_view file_name, Tree& tree);

}  // namespace agent_vm

#include "image/tree_rules.h"

#include <array>
#include <charconv>
#include <map>

#include "base/text.h"

namespace agent_vm {
namespace {

using Arguments = std::vector<std::string>;

Result<mode_t> parse_mode(const std::string& text) {
  unsigned mode = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), mode, 8);
  if (error != std::errc() || end != text.data() + text.size() || mode > 07777) {
    return fail(ErrorKind::kInvalidInput, "'{}' is no octal mode", escape_line(text));
  }
  return static_cast<mode_t>(mode);
}

std::size_t arguments_of(char type) {
  switch (type) {
    case 'd':
    case 'f':
    case 'u':
      return 3;
    case 'L':
    case 'm':
    case 'g':
      return 1;
    default:
      return 0;
  }
}

Status check(const TreeRule& rule) {
  if (std::string_view("ugdfLRm").find(rule.type) == std::string_view::npos) {
    return fail(ErrorKind::kInvalidInput, "unknown rule '{}'; known are u, g, d, f, L, R and m",
                rule.type);
  }
  if (rule.arguments.size() != arguments_of(rule.type)) {
    return fail(ErrorKind::kInvalidInput, "'{}' takes {} words after its path, not {}", rule.type,
                arguments_of(rule.type), rule.arguments.size());
  }
  if (rule.type != 'u' && rule.type != 'g' &&
      (rule.path.size() < 2 || rule.path[0] != '/' || TRY(normal_path(rule.path)) != rule.path)) {
    return fail(ErrorKind::kInvalidInput, "'{}' is not a plain absolute path",
                escape_line(rule.path));
  }
  if (rule.type == 'd' || rule.type == 'f' || rule.type == 'm') TRY(parse_mode(rule.arguments[0]));
  if (rule.type == 'u' && !parse_unsigned(rule.arguments[0])) {
    return fail(ErrorKind::kInvalidInput, "'{}' is no user id", escape_line(rule.arguments[0]));
  }
  return {};
}

class Applier {
 public:
  explicit Applier(Tree& tree) : tree_(tree) {}

  Status apply(const TreeRule& rule) {
    switch (rule.type) {
      case 'u':
        return add_user(rule.path, rule.arguments);
      case 'g':
        return join_group(rule.path, rule.arguments[0]);
      case 'd':
      case 'f':
        return make(rule);
      case 'L':
        TRY(tree_.make_parents(rule.path));
        return tree_.put(
            rule.path, Node{.type = NodeType::kSymlink, .mode = 0777, .target = rule.arguments[0]});
      case 'm':
        // A variant may lack the package.
        if (tree_.find(rule.path) == nullptr) return {};
        return tree_.set_mode(rule.path, TRY(parse_mode(rule.arguments[0])));
      default:
        tree_.remove(rule.path);
        return {};
    }
  }

 private:
  Status make(const TreeRule& rule) {
    Node node;
    node.type = rule.type == 'd' ? NodeType::kDirectory : NodeType::kFile;
    node.mode = TRY(parse_mode(rule.arguments[0]));
    node.uid = TRY(id_of("/etc/passwd", rule.arguments[1]));
    node.gid = TRY(id_of("/etc/group", rule.arguments[2]));
    TRY(tree_.make_parents(rule.path));
    return tree_.put(rule.path, std::move(node));
  }

  Result<std::string> content(const std::string& path) const {
    const Node* node = tree_.find(path);
    const auto* text = node == nullptr ? nullptr : std::get_if<std::string>(&node->content);
    if (text == nullptr) return fail("the packages brought no {}", path);
    return *text;
  }

  // passwd(5) and group(5) agree on the first and the third field.
  Result<std::uint32_t> id_of(const std::string& file, const std::string& name) const {
    const std::string text = TRY(content(file));
    for (const auto& line : split_lines(text)) {
      const auto fields = split(line, ':');
      if (fields.size() < 3 || fields[0] != name) continue;
      if (const auto id = parse_unsigned(fields[2])) return static_cast<std::uint32_t>(*id);
    }
    return fail("'{}' is not in the image's {}", escape_line(name), file);
  }

  Status append(const std::string& file, const std::string& line) {
    const std::string text = TRY(content(file));
    Node node = *tree_.find(file);
    node.size = text.size() + line.size();
    node.content = text + line;
    return tree_.put(file, std::move(node));
  }

  // Without a password: "*" matches none, and, unlike "!", does not tell sshd that the account is
  // locked. Not aging: the last change was at no time.
  Status add_user(const std::string& name, const Arguments& arguments) {
    const std::string& id = arguments[0];
    TRY(append("/etc/passwd",
               fmt::format("{0}:x:{1}:{1}:{0}:{2}:{3}\n", name, id, arguments[1], arguments[2])));
    TRY(append("/etc/group", fmt::format("{}:x:{}:\n", name, id)));
    TRY(append("/etc/shadow", fmt::format("{}:*::0:99999:7:::\n", name)));
    return append("/etc/gshadow", fmt::format("{}:*::\n", name));
  }

  Status join_group(const std::string& user, const std::string& group) {
    TRY(id_of("/etc/passwd", user));
    TRY(id_of("/etc/group", group));
    TRY(append_to_last_field("/etc/group", group, user));
    return append_to_last_field("/etc/gshadow", group, user);
  }

  // Members are the last field of group(5) and gshadow(5), separated by commas.
  Status append_to_last_field(const std::string& file, const std::string& name,
                              const std::string& member) {
    std::string text;
    for (auto line : split_lines(TRY(content(file)))) {
      if (line.starts_with(name + ":")) line += (line.ends_with(':') ? "" : ",") + member;
      text += line + "\n";
    }
    Node node = *tree_.find(file);
    node.size = text.size();
    node.content = std::move(text);
    return tree_.put(file, std::move(node));
  }

  Tree& tree_;
};

}  // namespace

Result<std::vector<TreeRule>> parse_tree_rules(std::string_view text, std::string_view file_name) {
  std::vector<TreeRule> rules;
  std::size_t number = 0;
  for (const auto& line : split_lines(text)) {
    ++number;
    TreeRule rule{.line = number};
    std::vector<std::string> words;
    for (auto& word : split(line, ' ')) {
      if (!word.empty()) words.push_back(std::move(word));
    }
    if (words.empty() || words[0].starts_with('#')) continue;
    if (words[0].size() != 1 || words.size() < 2) {
      return fail(ErrorKind::kInvalidInput, "{}:{}: expected a letter and a path", file_name,
                  number);
    }
    rule.type = words[0][0];
    rule.path = words[1];
    rule.arguments.assign(words.begin() + 2, words.end());
    TRY_CONTEXT(check(rule), "{}:{}", file_name, number);
    rules.push_back(std::move(rule));
  }
  return rules;
}

Status apply_tree_rules(const std::vector<TreeRule>& rules, std::string_view file_name,
                        Tree& tree) {
  Applier applier(tree);
  for (const auto& rule : rules) {
    TRY_CONTEXT(applier.apply(rule), "{}:{}", file_name, rule.line);
  }
  return {};
}

}  // namespace agent_vm

#include "mcp/json_object.h"

#include "mcp/json_scanner.h"
#include "mcp/message.h"

namespace agent_vm::mcp {

std::optional<std::vector<JsonMember>> object_members(std::string_view text) {
  JsonScanner scanner(text);
  scanner.skip_space();
  if (scanner.peek() != '{') return {};
  std::vector<JsonMember> members;
  // The scanner tells where a value begins; its key is the text between two members.
  std::size_t from = scanner.position() + 1;
  const bool complete = scanner.object([&](const std::string& key) {
    const std::size_t quote = text.find('"', from);
    const auto value = scanner.value(1);
    if (!value) return false;
    from = scanner.position();
    members.push_back({key, text.substr(quote, from - quote), *value});
    return true;
  });
  if (!complete) return {};
  return members;
}

std::string_view member_of(std::string_view object, std::string_view key) {
  if (const auto members = object_members(object)) {
    for (const JsonMember& member : *members) {
      if (member.key == key) return member.value;
    }
  }
  return {};
}

std::optional<std::string> string_member_of(std::string_view object, std::string_view key) {
  const std::string_view raw = member_of(object, key);
  if (raw.empty() || raw.front() != '"') return {};
  return JsonScanner::decode_string(raw);
}

std::vector<std::string_view> elements_of(std::string_view array) {
  std::vector<std::string_view> elements;
  JsonScanner scanner(array);
  scanner.skip_space();
  if (scanner.peek() != '[') return elements;
  scanner.array([&] {
    const auto value = scanner.value(1);
    if (value) elements.push_back(*value);
    return value.has_value();
  });
  return elements;
}

std::vector<std::string> strings_of(std::string_view array) {
  std::vector<std::string> strings;
  for (const std::string_view element : elements_of(array)) {
    if (element.front() == '"') strings.push_back(JsonScanner::decode_string(element));
  }
  return strings;
}

std::string edit_object(std::string_view object, const ObjectEdit& edit) {
  std::string out = "{";
  const auto append = [&](std::string_view part) {
    if (out.size() > 1) out += ',';
    out += part;
  };
  std::set<std::string> done;
  for (const JsonMember& member : object_members(object).value_or(std::vector<JsonMember>())) {
    if (edit.remove.count(member.key) != 0) continue;
    const auto change = edit.set.find(member.key);
    if (change == edit.set.end()) {
      append(member.whole);
    } else if (done.insert(member.key).second) {
      append(quote_json(member.key) + ":" + change->second);
    }
  }
  for (const auto& [key, value] : edit.set) {
    if (done.count(key) == 0) append(quote_json(key) + ":" + value);
  }
  return out + "}";
}

}  // namespace agent_vm::mcp

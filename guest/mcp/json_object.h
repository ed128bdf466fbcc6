// Looking into a JSON object and changing a few of its members, while every other byte stays as it
// was: what a parser and a printer in between would not do (2^63, 1e400, duplicate keys).
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace agent_vm::mcp {

// Views into the text that was looked at.
struct JsonMember {
  std::string key;         // decoded
  std::string_view whole;  // from the key's quote to the end of the value
  std::string_view value;  // raw
};

// Nothing when `text` is not an object.
std::optional<std::vector<JsonMember>> object_members(std::string_view text);
// The raw value of the first member of that name; empty when there is none, or no object.
std::string_view member_of(std::string_view object, std::string_view key);
// member_of() for a string, decoded; nothing when it is absent or no string.
std::optional<std::string> string_member_of(std::string_view object, std::string_view key);
// The raw elements of an array; none when it is no array.
std::vector<std::string_view> elements_of(std::string_view array);
// The strings of an array, decoded; other elements are left out.
std::vector<std::string> strings_of(std::string_view array);

struct ObjectEdit {
  std::map<std::string, std::string> set;  // raw values; replaces the member or appends it
  std::set<std::string> remove;
};
// `object` must be an object; what is no object becomes one of just the members that are set.
std::string edit_object(std::string_view object, const ObjectEdit& edit);

}  // namespace agent_vm::mcp

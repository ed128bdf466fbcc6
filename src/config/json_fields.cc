#include "config/json_fields.h"

#include <algorithm>

#include "base/text.h"

namespace agent_vm {

using nlohmann::json;

Result<JsonFields> JsonFields::of(const json& object, std::string where) {
  if (!object.is_object()) return fail("{} is not a JSON object", where);
  return JsonFields(object, std::move(where));
}

Result<const json*> JsonFields::find(const std::string& key) {
  asked_.push_back(key);
  const auto at = object_->find(key);
  if (at == object_->end()) return fail("{} has no '{}'", where_, key);
  return &*at;
}

Result<std::string> JsonFields::text(const std::string& key) {
  const json& value = *TRY(find(key));
  if (!value.is_string()) return fail("{}: '{}' is not a string", where_, key);
  return value.get<std::string>();
}

Result<std::uint64_t> JsonFields::number(const std::string& key, std::uint64_t max) {
  const json& value = *TRY(find(key));
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > max) {
    return fail("{}: '{}' is not a whole number from 0 to {}", where_, key, max);
  }
  return value.get<std::uint64_t>();
}

Result<bool> JsonFields::boolean(const std::string& key) {
  const json& value = *TRY(find(key));
  if (!value.is_boolean()) return fail("{}: '{}' is not true or false", where_, key);
  return value.get<bool>();
}

Result<std::vector<std::string>> JsonFields::texts(const std::string& key) {
  const json& value = *TRY(find(key));
  if (!value.is_array() || !std::ranges::all_of(value, [](const json& e) { return e.is_string(); }))
    return fail("{}: '{}' is not a list of strings", where_, key);
  return value.get<std::vector<std::string>>();
}

Result<std::map<std::string, std::string>> JsonFields::text_map(const std::string& key) {
  JsonFields fields = TRY(object(key));
  std::map<std::string, std::string> map;
  for (const auto& name : fields.keys()) map[name] = TRY(fields.text(name));
  return map;
}

Result<JsonFields> JsonFields::object(const std::string& key) {
  const json& value = *TRY(find(key));
  return of(value, fmt::format("{}: {}", where_, escape_line(key)));
}

std::vector<std::string> JsonFields::keys() {
  for (const auto& [key, value] : object_->items()) asked_.push_back(key);
  std::vector<std::string> keys;
  for (const auto& [key, value] : object_->items()) keys.push_back(key);
  return keys;
}

Status JsonFields::no_others() const {
  for (const auto& [key, value] : object_->items()) {
    if (std::ranges::find(asked_, key) != asked_.end()) continue;
    const auto near = nearest(key, asked_);
    return fail(ErrorKind::kInvalidInput, "{}: unknown key '{}'{}", where_, escape_line(key),
                near ? fmt::format("; did you mean '{}'?", *near) : "");
  }
  return {};
}

Result<json> parse_json(std::string_view text, std::string_view where) {
  // The parser recurses on nesting only in its callback form; a bound keeps destruction shallow.
  constexpr int kMaxDepth = 32;
  bool too_deep = false;
  const auto callback = [&](int depth, json::parse_event_t, json&) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  try {
    json value = json::parse(text, callback);
    if (too_deep) return fail("{} is nested too deeply", where);
    return value;
  } catch (const json::exception& e) {
    return fail("{} is not JSON: {}", where, escape_line(e.what()));
  }
}

}  // namespace agent_vm

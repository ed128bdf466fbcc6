// Reading a JSON object field by field: each value has its type checked, and what nobody asked for
// is an error that names the nearest known key.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace agent_vm {

class JsonFields {
 public:
  // `where` names the object in errors: "config.json", "config.json: image".
  static Result<JsonFields> of(const nlohmann::json& object, std::string where);

  // Absent or of another type: an error.
  Result<std::string> text(const std::string& key);
  Result<std::uint64_t> number(const std::string& key, std::uint64_t max);
  Result<bool> boolean(const std::string& key);
  Result<std::vector<std::string>> texts(const std::string& key);
  Result<std::map<std::string, std::string>> text_map(const std::string& key);
  Result<JsonFields> object(const std::string& key);
  // Keys of this object; they count as asked for.
  std::vector<std::string> keys();

  bool has(const std::string& key) const { return object_->contains(key); }
  // Refuses keys that were never asked for.
  Status no_others() const;

 private:
  JsonFields(const nlohmann::json& object, std::string where)
      : object_(&object), where_(std::move(where)) {}
  Result<const nlohmann::json*> find(const std::string& key);

  const nlohmann::json* object_;  // outlives this
  std::string where_;
  std::vector<std::string> asked_;
};

// Parses text that must be one JSON object, and hands it to `read`. Too deep or broken: an error.
Result<nlohmann::json> parse_json(std::string_view text, std::string_view where);

}  // namespace agent_vm

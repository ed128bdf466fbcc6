#include "mcp/param_headers.h"

#include <fmt/format.h>

#include <charconv>

#include "mcp/json_object.h"
#include "mcp/json_scanner.h"
#include "mcp/stateless_request.h"

namespace agent_vm::mcp {
namespace {

constexpr std::size_t kMaxTools = 4096;
constexpr std::size_t kMaxDepth = 16;
constexpr std::size_t kMaxParameters = 64;  // of one tool

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::optional<double> as_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

// 42 and 42.0 are the same integer; everything else is compared as text.
bool same(std::string_view raw, const std::string& header) {
  if (raw.front() == '"') return JsonScanner::decode_string(raw) == header;
  if (raw == header) return true;
  const auto number = as_number(raw);
  return number && number == as_number(header);
}

}  // namespace

void ParamHeaders::learn(std::string_view result) {
  for (const std::string_view tool : elements_of(member_of(result, "tools"))) {
    const std::string name = string_member_of(tool, "name").value_or("");
    std::vector<Parameter> parameters;
    collect(member_of(tool, "inputSchema"), {}, parameters);
    tools_.erase(name);
    if (!parameters.empty() && tools_.size() < kMaxTools) tools_[name] = std::move(parameters);
  }
}

// Only what a chain of `properties` leads to counts.
void ParamHeaders::collect(std::string_view schema, const std::vector<std::string>& path,
                           std::vector<Parameter>& parameters) {
  if (path.size() >= kMaxDepth) return;
  const auto properties = object_members(member_of(schema, "properties"));
  if (!properties) return;
  for (const JsonMember& property : *properties) {
    if (parameters.size() >= kMaxParameters) return;
    std::vector<std::string> below = path;
    below.push_back(property.key);
    const auto header = string_member_of(property.value, "x-mcp-header");
    if (header && !header->empty()) parameters.push_back({below, lower(*header)});
    collect(property.value, below, parameters);
  }
}

std::optional<std::string> ParamHeaders::mismatch(
    const std::string& tool, std::string_view arguments,
    const std::map<std::string, std::string>& headers) const {
  const auto known = tools_.find(tool);
  if (known == tools_.end()) return {};
  for (const Parameter& parameter : known->second) {
    std::string_view value = arguments;
    for (const std::string& key : parameter.path) value = member_of(value, key);
    if (value == "null") value = {};
    const auto header = headers.find(parameter.header);
    if (value.empty() && header == headers.end()) continue;
    const std::string name = "Mcp-Param-" + parameter.header;
    if (header == headers.end()) return name + " is missing";
    if (value.empty()) return name + " names an argument that the body does not have";
    const auto decoded = decode_header(header->second);
    if (!decoded) return name + " is not valid Base64";
    if (!same(value, *decoded)) return name + " is not the body's argument";
  }
  return {};
}

}  // namespace agent_vm::mcp

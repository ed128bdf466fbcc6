// Arguments of a tool that revision 2026-07-28 wants repeated in HTTP headers ("x-mcp-header" in
// the tool's schema), so that whoever looks only at headers and whoever looks only at the body see
// the same call.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace agent_vm::mcp {

class ParamHeaders {
 public:
  // Takes note of the tools in the (raw) result of tools/list.
  void learn(std::string_view result);
  void forget() { tools_.clear(); }

  // What does not match, as a sentence; nothing when all does, or the tool is not known.
  // `headers`: by the lower-cased name behind "Mcp-Param-".
  std::optional<std::string> mismatch(const std::string& tool, std::string_view arguments,
                                      const std::map<std::string, std::string>& headers) const;

 private:
  struct Parameter {
    std::vector<std::string> path;
    std::string header;  // lower case
  };
  void collect(std::string_view schema, const std::vector<std::string>& path,
               std::vector<Parameter>& parameters);
  std::map<std::string, std::vector<Parameter>> tools_;
};

}  // namespace agent_vm::mcp

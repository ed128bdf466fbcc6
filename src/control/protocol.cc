#include "control/protocol.h"

namespace agent_vm {

using nlohmann::json;

json error_to_json(const Error& error) {
  return {{"kind", to_string(error.kind())},
          {"message", error.message()},
          {"hint", error.hint()},
          {"evidence", error.evidence()}};
}

Error error_from_json(const json& value) {
  const auto text = [&](const char* name) {
    return value.is_object() && value.contains(name) && value[name].is_string()
               ? value[name].get<std::string>()
               : "";
  };
  std::vector<std::string> evidence;
  if (value.is_object() && value.contains("evidence") && value["evidence"].is_array()) {
    for (const auto& line : value["evidence"]) {
      if (line.is_string()) evidence.push_back(line.get<std::string>());
    }
  }
  return Error(error_kind_from_string(text("kind")), text("message"))
      .with_hint(text("hint"))
      .with_evidence(std::move(evidence));
}

json progress_message(const std::string& step, const std::string& text) {
  return {{"progress", {{"step", step}, {"text", text}}}};
}

json result_message(const json& result) {
  return {{"ok", true}, {"result", result}};
}

json error_message(const Error& error) {
  return {{"ok", false}, {"error", error_to_json(error)}};
}

}  // namespace agent_vm

// A message, as a client or a server sends it: found to be one or not, and then what the parts make
// of it must be JSON again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "mcp/json_object.h"
#include "mcp/json_scanner.h"
#include "mcp/message.h"
#include "mcp/param_headers.h"
#include "mcp/stateless_request.h"

namespace {

using namespace agent_vm::mcp;

void check(bool holds) {
  if (!holds) std::abort();
}

bool is_json(std::string_view text) {
  JsonScanner scanner(text);
  const bool one = scanner.value().has_value();
  scanner.skip_space();
  return one && scanner.at_end();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parts = split_body(text, true);
  const auto envelope = parse_message(text);
  if (envelope) check(is_json(text));
  if (parts) {
    for (const std::string_view part : *parts) static_cast<void>(parse_message(part));
  }
  if (!envelope) return 0;
  std::string line(text);
  to_one_line(line);
  check(is_json(line) && line.find('\n') == std::string::npos);
  check(edit_object(text, {}).size() <= text.size());
  if (!envelope->id.empty()) check(is_json(with_id(text, envelope->id, "\"x\"")));
  ParamHeaders params;
  params.learn(member_of(text, "result"));
  static_cast<void>(params.mismatch("t", member_of(text, "params"), {{"a", "1"}}));
  if (envelope->kind != MessageKind::kRequest) return 0;
  MirrorHeaders headers;
  headers.protocol_version = envelope->meta_protocol_version;
  headers.method = envelope->method;
  const std::string_view body_params = member_of(text, "params");
  headers.name = string_member_of(body_params, "name");
  if (!headers.name) headers.name = string_member_of(body_params, "uri");
  const auto request = parse_stateless(text, *envelope, headers);
  if (request) check(is_json(request->params));
  return 0;
}

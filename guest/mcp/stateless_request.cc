#include "mcp/stateless_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "mcp/json_object.h"
#include "mcp/json_scanner.h"
#include "mcp/sha256.h"

namespace agent_vm::mcp {
namespace {

constexpr std::array<std::string_view, 4> kHandshakeVersions = {"2025-11-25", "2025-06-18",
                                                                "2025-03-26", "2024-11-05"};
constexpr std::size_t kMaxInputResponses = 64;

// Which member of params the header Mcp-Name repeats.
std::string_view name_member(std::string_view method) {
  if (method == "tools/call" || method == "prompts/get") return "name";
  return method == "resources/read" ? "uri" : "";
}

bool is_object(std::string_view raw) {
  return !raw.empty() && raw.front() == '{';
}

Refusal mismatch(const Envelope& envelope, std::string message) {
  return refuse(kHeaderMismatch, "Header mismatch: " + std::move(message), envelope.id);
}
Refusal invalid(const Envelope& envelope, std::string message) {
  return refuse(kInvalidParams, std::move(message), envelope.id);
}

// Version first, and in this order: a client falls back to a handshake, or mends its request, by
// the code that it gets.
std::optional<Refusal> check_version(const Envelope& envelope, const MirrorHeaders& headers) {
  const std::string& in_body = envelope.meta_protocol_version;
  const std::string in_header = headers.protocol_version.value_or("");
  if (in_body.empty()) {
    if (!in_header.empty() && in_header != kStatelessVersion) {
      return unsupported_version(envelope.id, in_header);
    }
    return invalid(envelope, fmt::format("params._meta[\"{}\"] is missing", kMetaVersion));
  }
  if (in_header != in_body) {
    return mismatch(envelope, in_header.empty()
                                  ? "MCP-Protocol-Version is missing"
                                  : fmt::format("MCP-Protocol-Version is {} and the body says {}",
                                                in_header, in_body));
  }
  if (in_body != kStatelessVersion) return unsupported_version(envelope.id, in_body);
  return {};
}

std::optional<Refusal> check_headers(const Envelope& envelope, const MirrorHeaders& headers,
                                     std::string_view params) {
  if (headers.method.value_or("") != envelope.method) {
    return mismatch(envelope, headers.method
                                  ? fmt::format("Mcp-Method is {} and the body's method is {}",
                                                *headers.method, envelope.method)
                                  : "Mcp-Method is missing");
  }
  const std::string_view member = name_member(envelope.method);
  if (member.empty()) return {};
  const auto name = string_member_of(params, member);
  if (!name) {
    return invalid(envelope, fmt::format("params.{} must be a string", member));
  }
  if (!headers.name) return mismatch(envelope, "Mcp-Name is missing");
  if (decode_header(*headers.name) != *name) {
    return mismatch(envelope, fmt::format("Mcp-Name is not the body's {}", member));
  }
  return {};
}

tl::expected<void, Refusal> read_responses(const Envelope& envelope, std::string_view params,
                                           StatelessRequest& request) {
  const std::string_view responses = member_of(params, "inputResponses");
  if (responses.empty()) return {};
  const auto members = object_members(responses);
  if (!members || members->size() > kMaxInputResponses) {
    return tl::unexpected(invalid(envelope, "params.inputResponses must be an object"));
  }
  for (const JsonMember& member : *members) {
    if (!is_object(member.value)) {
      return tl::unexpected(invalid(envelope, fmt::format("the input response {} must be an object",
                                                          quote_json(member.key))));
    }
    request.input_responses[member.key] = member.value;
  }
  return {};
}

// What an earlier revision understands: without this revision's members.
std::string common_params(std::string_view params, std::string_view meta) {
  ObjectEdit edit;
  edit.remove = {"inputResponses", "requestState"};
  ObjectEdit meta_edit;
  for (const std::string_view key :
       {kMetaVersion, kMetaCapabilities, kMetaClientInfo, kMetaLogLevel}) {
    meta_edit.remove.emplace(key);
  }
  std::string rest = edit_object(meta, meta_edit);
  if (rest == "{}") {
    edit.remove.emplace("_meta");
  } else {
    edit.set["_meta"] = std::move(rest);
  }
  return edit_object(params, edit);
}

}  // namespace

bool is_handshake_version(std::string_view version) {
  return std::find(kHandshakeVersions.begin(), kHandshakeVersions.end(), version) !=
         kHandshakeVersions.end();
}

std::string supported_versions() {
  return fmt::format(R"(["{}","{}"])", kStatelessVersion, fmt::join(kHandshakeVersions, "\",\""));
}

Refusal unsupported_version(std::string_view raw_id, std::string_view requested) {
  Refusal refusal = refuse(kUnsupportedProtocolVersion, "Unsupported protocol version",
                           raw_id.empty() ? "null" : raw_id);
  refusal.error.data = fmt::format(R"({{"supported":{},"requested":{}}})", supported_versions(),
                                   quote_json(requested));
  return refusal;
}

std::optional<std::string> decode_header(std::string_view value) {
  constexpr std::string_view kPrefix = "=?base64?";
  constexpr std::string_view kSuffix = "?=";
  value = trim(value);
  if (value.size() < kPrefix.size() + kSuffix.size() || !value.starts_with(kPrefix) ||
      !value.ends_with(kSuffix)) {
    return std::string(value);
  }
  value.remove_prefix(kPrefix.size());
  value.remove_suffix(kSuffix.size());
  auto decoded = base64_decode(value);
  if (!decoded || value.size() % 4 != 0) return {};
  return std::move(*decoded);
}

bool StatelessRequest::declares(std::string_view capability) const {
  return is_object(member_of(capabilities, capability));
}

bool StatelessRequest::interactive() const {
  return !name_member(method).empty();
}

bool StatelessRequest::may_ask() const {
  return interactive() && (declares("sampling") || declares("elicitation") || declares("roots"));
}

bool is_stateless(const Envelope& envelope, std::string_view protocol_version_header) {
  if (!envelope.meta_protocol_version.empty()) {
    return !is_handshake_version(envelope.meta_protocol_version);
  }
  if (envelope.method == "server/discover" || envelope.method == "subscriptions/listen") {
    return true;
  }
  return !protocol_version_header.empty() && !is_handshake_version(protocol_version_header);
}

tl::expected<StatelessRequest, Refusal> parse_stateless(std::string_view body,
                                                        const Envelope& envelope,
                                                        const MirrorHeaders& headers) {
  const std::string_view params = member_of(body, "params");
  const std::string_view meta = member_of(params, "_meta");
  if (auto refusal = check_version(envelope, headers)) return tl::unexpected(*refusal);
  StatelessRequest request;
  request.id = envelope.id;
  request.method = envelope.method;
  request.capabilities = member_of(meta, kMetaCapabilities);
  if (!is_object(request.capabilities)) {
    return tl::unexpected(
        invalid(envelope, fmt::format("params._meta[\"{}\"] is missing", kMetaCapabilities)));
  }
  if (auto refusal = check_headers(envelope, headers, params)) return tl::unexpected(*refusal);
  if (const auto read = read_responses(envelope, params, request); !read) {
    return tl::unexpected(read.error());
  }
  if (const std::string_view member = name_member(request.method); !member.empty()) {
    request.name = string_member_of(params, member).value_or("");
  }
  request.client_info = member_of(meta, kMetaClientInfo);
  request.progress_token = envelope.progress_token;
  request.log_level = string_member_of(meta, kMetaLogLevel).value_or("");
  request.notifications = member_of(params, "notifications");
  request.request_state = string_member_of(params, "requestState").value_or("");
  request.params = common_params(params, meta);
  request.param_headers = headers.params;
  const Sha256 hash = sha256(
      fmt::format("{}\n{}\n{}", request.method, request.name, member_of(params, "arguments")));
  request.digest = to_hex(hash).substr(0, 32);
  return request;
}

}  // namespace agent_vm::mcp

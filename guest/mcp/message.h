// One JSON-RPC message as the gateway sees it: its envelope, and its bytes left alone.
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

namespace agent_vm::mcp {

// JSON-RPC error codes that the gateway itself sends.
inline constexpr int kParseError = -32700;
inline constexpr int kInvalidRequest = -32600;
inline constexpr int kMethodNotFound = -32601;
inline constexpr int kInvalidParams = -32602;
inline constexpr int kInternalError = -32603;
// The server behind the gateway went away, or cannot be started.
inline constexpr int kServerUnavailable = -32000;
// Revision 2026-07-28's own.
inline constexpr int kHeaderMismatch = -32020;
inline constexpr int kMissingClientCapability = -32021;
inline constexpr int kUnsupportedProtocolVersion = -32022;
// Codes of earlier revisions, which that revision must not see.
inline constexpr int kResourceNotFound = -32002;
inline constexpr int kUrlElicitationRequired = -32042;

enum class MessageKind { kRequest, kNotification, kResponse };

// Views point into the text that was parsed. "Raw" means JSON text, quotes included.
struct Envelope {
  MessageKind kind = MessageKind::kNotification;
  std::string method;                 // decoded; empty for a response
  std::string_view id;                // raw; empty for a notification, "null" in some errors
  std::string_view progress_token;    // raw params._meta.progressToken of a request
  std::string_view progress_of;       // raw params.progressToken of notifications/progress
  std::string_view request_id;        // raw params.requestId of notifications/cancelled
  std::string protocol_version;       // result.protocolVersion or params.protocolVersion, decoded
  std::string meta_protocol_version;  // params._meta["io.modelcontextprotocol/protocolVersion"]
  bool is_error = false;              // a response that carries `error`
};

struct MessageError {
  int code = kParseError;
  std::string message;
  std::string id = "null";  // raw id of the refused message where one could be read
  std::string data;         // raw, or empty
};

template <typename T>
using MessageResult = tl::expected<T, MessageError>;

// Parses a single message. Member names that decide where a message goes must not come twice: two
// parsers could read two different messages.
MessageResult<Envelope> parse_message(std::string_view text);

// The messages of a body: one, or (when `allow_batch`) the elements of a non-empty array. Each
// element is checked to be JSON; parse_message() says whether it is a message.
MessageResult<std::vector<std::string_view>> split_body(std::string_view body, bool allow_batch);

// Two raw ids are the same id when their keys are equal ("a" and "\u0061"; but never 1 and "1").
std::string id_key(std::string_view raw);
// Whether a JavaScript peer gives this id back unchanged: a string, or an integer within 2^53.
bool id_is_portable(std::string_view raw);

// Replaces the raw id `view` (which must point into `text`) by another raw id.
std::string with_id(std::string_view text, std::string_view view, std::string_view raw_id);

// Makes a valid JSON text fit on one line of a stdio server. Outside strings a line break is only
// white space, and inside one it cannot occur, so nothing changes but white space.
void to_one_line(std::string& text);

// {"jsonrpc":"2.0","id":...,"error":{...}}
std::string error_message(std::string_view raw_id, int code, std::string_view message,
                          std::string_view raw_data = {});
// A JSON string token with its quotes.
std::string quote_json(std::string_view text);

}  // namespace agent_vm::mcp

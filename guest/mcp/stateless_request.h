// A request of revision 2026-07-28: it carries all that it needs, and its HTTP headers repeat some
// of it. Here it is taken apart and checked; what a server of an earlier revision is to get of it
// is put together again.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "mcp/message.h"
#include "mcp/server_side.h"

namespace agent_vm::mcp {

inline constexpr std::string_view kStatelessVersion = "2026-07-28";
bool is_handshake_version(std::string_view version);  // 2024-11-05 to 2025-11-25
// All that the gateway speaks, newest first, as a JSON array.
std::string supported_versions();

inline constexpr std::string_view kMetaVersion = "io.modelcontextprotocol/protocolVersion";
inline constexpr std::string_view kMetaCapabilities = "io.modelcontextprotocol/clientCapabilities";
inline constexpr std::string_view kMetaClientInfo = "io.modelcontextprotocol/clientInfo";
inline constexpr std::string_view kMetaServerInfo = "io.modelcontextprotocol/serverInfo";
inline constexpr std::string_view kMetaLogLevel = "io.modelcontextprotocol/logLevel";
inline constexpr std::string_view kMetaSubscription = "io.modelcontextprotocol/subscriptionId";

// The request headers that mirror the body; nothing where the request has none.
struct MirrorHeaders {
  std::optional<std::string> protocol_version;
  std::optional<std::string> method;
  std::optional<std::string> name;
  std::map<std::string, std::string> params;  // by the lower-cased name behind "Mcp-Param-"
};

struct StatelessRequest {
  std::string id;  // raw, like all that is not said to be decoded
  std::string method;
  std::string name;            // params.name or params.uri, decoded; of the methods that have one
  std::string params;          // without what only this revision knows
  std::string capabilities;    // the client's
  std::string client_info;     // empty when the client did not say
  std::string progress_token;  // empty without
  std::string log_level;       // decoded; empty: no log messages
  std::string notifications;   // the filter of subscriptions/listen
  std::string request_state;   // decoded; empty without
  std::map<std::string, std::string> input_responses;
  std::map<std::string, std::string> param_headers;
  std::string digest;  // of method, name and arguments: the same in a retry
  // Whether a server can ask its client for something while it works on this ...
  bool interactive() const;
  // ... and whether this client has declared anything that it can be asked for.
  bool may_ask() const;
  // Whether the client declared a capability ("sampling", "elicitation", "roots").
  bool declares(std::string_view capability) const;
};

// Whether a message is of this revision: by what it says itself, never by who sends it.
bool is_stateless(const Envelope& envelope, std::string_view protocol_version_header);

// `body` was parsed to `envelope`, which is a request.
tl::expected<StatelessRequest, Refusal> parse_stateless(std::string_view body,
                                                        const Envelope& envelope,
                                                        const MirrorHeaders& headers);

Refusal unsupported_version(std::string_view raw_id, std::string_view requested);
// A header value in the form "=?base64?...?=" decoded; nothing when it is broken.
std::optional<std::string> decode_header(std::string_view value);

}  // namespace agent_vm::mcp

// What a request's head says: its target, and the values of its headers.
#include <cstdint>
#include <string_view>

#include "http/access.h"
#include "http/route.h"
#include "mcp/event_stream.h"
#include "mcp/request_state.h"
#include "mcp/stateless_request.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace agent_vm;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const http::Route route = http::parse_target(text);
  static_cast<void>(http::query_value(route.query, "sessionId"));
  static const auto origins = http::OriginPolicy::make({"https://claude.ai"});
  static const auto hosts = http::HostPolicy::make({"localhost", "127.0.0.1:8000", "[::1]"});
  const bool origin = origins->allows(text);
  const bool host = hosts->allows(text);
  // Nothing is both, and nothing long is either.
  if ((origin && host) || ((origin || host) && size > 64)) __builtin_trap();
  static_cast<void>(http::bearer_matches(text, "token-of-the-fuzzer-0123456789"));
  static_cast<void>(http::media_type_is(text, "application/json"));
  static_cast<void>(http::accepts(text, "text/event-stream"));
  static_cast<void>(mcp::parse_event_id(text));
  static_cast<void>(mcp::decode_header(text));
  static const mcp::StateSigner signer(std::string(32, 'k'));
  if (signer.verify(text, 0)) __builtin_trap();  // nobody guesses a signature
  return 0;
}

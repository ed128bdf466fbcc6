#include "mcp/request_state.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "mcp/sha256.h"

namespace agent_vm::mcp {
namespace {

constexpr std::size_t kMaxBytes = 512;

// In a time that does not depend on where the two differ.
bool equal(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  }
  return difference == 0;
}

}  // namespace

std::string StateSigner::mac(std::string_view payload) const {
  return to_hex(hmac_sha256(key_, payload));
}

std::string StateSigner::sign(const RequestState& state) const {
  const std::string payload = fmt::format("{}.{}.{}.{}.{}", state.server, state.call, state.round,
                                          state.expires, state.digest);
  return payload + "." + mac(payload);
}

tl::expected<RequestState, std::string> StateSigner::verify(std::string_view text,
                                                            std::int64_t now) const {
  const std::size_t dot = text.rfind('.');
  if (text.size() > kMaxBytes || dot == std::string_view::npos ||
      !equal(text.substr(dot + 1), mac(text.substr(0, dot)))) {
    return tl::unexpected(std::string("this requestState was not issued here, or was changed"));
  }
  const std::vector<std::string> parts = split(text.substr(0, dot), '.');
  RequestState state;
  const auto number = [&](std::size_t i) { return parse_unsigned(parts[i]).value_or(0); };
  if (parts.size() != 5) return tl::unexpected(std::string("this requestState has another form"));
  state.server = number(0);
  state.call = number(1);
  state.round = number(2);
  state.expires = static_cast<std::int64_t>(number(3));
  state.digest = parts[4];
  if (now >= state.expires)
    return tl::unexpected(std::string("this requestState has expired; call again"));
  return state;
}

}  // namespace agent_vm::mcp

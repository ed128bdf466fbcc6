// The requestState of a call that waits for its client's input (revision 2026-07-28): it passes
// through the client, so it is signed, it expires, it names the request that it belongs to, and it
// holds for one use.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

namespace agent_vm::mcp {

struct RequestState {
  std::uint64_t server = 0;  // which shared server has the call
  std::uint64_t call = 0;
  std::uint64_t round = 0;   // the server counts it up at each use
  std::int64_t expires = 0;  // seconds, on the clock of whoever signs and verifies
  std::string digest;        // of the request: method and parameters
};

class StateSigner {
 public:
  // At least 32 random bytes that nobody else has.
  explicit StateSigner(std::string key) : key_(std::move(key)) {}
  std::string sign(const RequestState& state) const;
  // The error is a sentence for the client.
  tl::expected<RequestState, std::string> verify(std::string_view text, std::int64_t now) const;

 private:
  std::string mac(std::string_view payload) const;
  std::string key_;
};

}  // namespace agent_vm::mcp

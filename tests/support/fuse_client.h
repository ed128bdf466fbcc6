// FUSE requests by hand, to a virtiofsd: what a hostile guest could put into the share's queue,
// with no kernel in between that would refuse to send it.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"

namespace agent_vm::test {

struct FuseReply {
  bool answered = false;
  int error = 0;        // of errno, positive; 0: done
  std::string payload;  // behind the header

  bool refused() const { return answered && error != 0; }
};

// The other end of a vhost-user connection: memory of its own, one queue, one request at a time.
class FuseClient {
 public:
  explicit FuseClient(Fd connection);
  ~FuseClient();
  FuseClient(const FuseClient&) = delete;
  FuseClient& operator=(const FuseClient&) = delete;

  // Sets up the queue and opens the FUSE session.
  bool open();
  // As the guest's root. `arguments`: what follows the header, as it is.
  FuseReply request(std::uint32_t opcode, std::uint64_t node, const std::string& arguments);

 private:
  bool send(std::uint32_t request, const std::string& payload, int descriptor = -1);
  bool ask(std::uint32_t request, std::uint64_t& value);
  bool set_up_queue();

  Fd connection_;
  Fd memory_;
  Fd kick_;
  Fd call_;
  unsigned char* map_ = nullptr;
  std::uint64_t unique_ = 0;
  std::uint16_t sent_ = 0;
};

// The bytes of a plain struct.
template <typename T>
std::string bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

}  // namespace agent_vm::test

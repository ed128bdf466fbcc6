#include "net/descriptor_passing.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace agent_vm {
namespace {
constexpr std::size_t kMost = 16;
}

Status send_descriptors(int socket, std::string_view text, const std::vector<int>& descriptors) {
  if (descriptors.empty() || descriptors.size() > kMost || text.empty()) {
    return fail(ErrorKind::kInternal, "cannot pass {} descriptors", descriptors.size());
  }
  iovec part{const_cast<char*>(text.data()), text.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMost)> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
  std::memcpy(CMSG_DATA(header), descriptors.data(), sizeof(int) * descriptors.size());
  if (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
    return fail_errno(errno, "cannot pass descriptors");
  return {};
}

Result<std::vector<Fd>> receive_descriptors(int socket, std::size_t count, std::string* text) {
  std::array<char, 8192> bytes{};
  iovec part{bytes.data(), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMost)> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return fail_errno(errno, "cannot receive descriptors");
  std::vector<Fd> descriptors;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t size = header->cmsg_len - CMSG_LEN(0);
    std::vector<int> numbers(size / sizeof(int));
    std::memcpy(numbers.data(), CMSG_DATA(header), numbers.size() * sizeof(int));
    for (const int number : numbers) descriptors.emplace_back(number);
  }
  if (descriptors.size() != count) {
    return fail("expected {} descriptors, received {}", count, descriptors.size());
  }
  if (text != nullptr) text->assign(bytes.data(), static_cast<std::size_t>(got));
  return descriptors;
}

}  // namespace agent_vm

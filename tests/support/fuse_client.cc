#include "support/fuse_client.h"

#include <linux/fuse.h>
#include <linux/virtio_config.h>
#define VIRTIO_RING_NO_LEGACY  // helpers that are no C++
#include <linux/virtio_ring.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <utility>

namespace agent_vm::test {
namespace {

// Requests of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst).
constexpr std::uint32_t kGetFeatures = 1;
constexpr std::uint32_t kSetFeatures = 2;
constexpr std::uint32_t kSetOwner = 3;
constexpr std::uint32_t kSetMemoryTable = 5;
constexpr std::uint32_t kSetRingSize = 8;
constexpr std::uint32_t kSetRingAddress = 9;
constexpr std::uint32_t kSetRingBase = 10;
constexpr std::uint32_t kSetRingKick = 12;
constexpr std::uint32_t kSetRingCall = 13;
constexpr std::uint32_t kVersion = 1;

// Queue 0 is for requests that overtake, 1 for all others.
constexpr std::uint32_t kQueue = 1;
constexpr std::uint32_t kRingSize = 8;

// Where things are in the memory that both sides see; "physical" addresses begin at 0.
constexpr std::size_t kMemory = 1U << 20U;
constexpr std::size_t kAvailable = 0x1000;
constexpr std::size_t kUsed = 0x2000;
constexpr std::size_t kOut = 0x10000;
constexpr std::size_t kIn = 0x40000;
constexpr std::size_t kInBytes = 0x20000;

constexpr int kPatienceMs = 30'000;

struct Header {
  std::uint32_t request, flags, size;
};

struct RingState {
  std::uint32_t index, number;
};

struct RingAddress {
  std::uint32_t index, flags;
  std::uint64_t descriptors, used, available, log;
};

struct MemoryTable {
  std::uint32_t regions, padding;
  std::uint64_t physical, size, address, offset;
};

}  // namespace

FuseClient::FuseClient(Fd connection)
    : connection_(std::move(connection)),
      memory_(::memfd_create("fuse-client", MFD_CLOEXEC)),
      kick_(::eventfd(0, EFD_CLOEXEC)),
      call_(::eventfd(0, EFD_CLOEXEC)) {
  if (::ftruncate(memory_.get(), kMemory) != 0) return;
  void* map = ::mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
  if (map != MAP_FAILED) map_ = static_cast<unsigned char*>(map);
}

FuseClient::~FuseClient() {
  if (map_ != nullptr) ::munmap(map_, kMemory);
}

bool FuseClient::send(std::uint32_t request, const std::string& payload, int descriptor) {
  std::string text =
      bytes_of(Header{request, kVersion, static_cast<std::uint32_t>(payload.size())}) + payload;
  iovec data{text.data(), text.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  alignas(cmsghdr) unsigned char control[CMSG_SPACE(sizeof descriptor)]{};
  if (descriptor >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof descriptor);
    std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
  }
  return ::sendmsg(connection_.get(), &message, MSG_NOSIGNAL) == std::ssize(text);
}

bool FuseClient::ask(std::uint32_t request, std::uint64_t& value) {
  if (!send(request, "")) return false;
  struct {
    Header header;
    unsigned char value[sizeof(std::uint64_t)];
  } reply{};
  pollfd ready{connection_.get(), POLLIN, 0};
  if (::poll(&ready, 1, kPatienceMs) != 1) return false;
  if (::recv(connection_.get(), &reply, sizeof reply, MSG_WAITALL) != sizeof reply) return false;
  std::memcpy(&value, reply.value, sizeof value);
  return true;
}

bool FuseClient::set_up_queue() {
  const auto base = reinterpret_cast<std::uint64_t>(map_);
  std::uint64_t features = 0;
  return ask(kGetFeatures, features) &&
         send(kSetFeatures, bytes_of(std::uint64_t{1} << VIRTIO_F_VERSION_1)) &&
         send(kSetOwner, "") &&
         send(kSetMemoryTable, bytes_of(MemoryTable{1, 0, 0, kMemory, base, 0}), memory_.get()) &&
         send(kSetRingSize, bytes_of(RingState{kQueue, kRingSize})) &&
         send(kSetRingBase, bytes_of(RingState{kQueue, 0})) &&
         send(kSetRingAddress,
              bytes_of(RingAddress{kQueue, 0, base, base + kUsed, base + kAvailable, 0})) &&
         send(kSetRingCall, bytes_of(std::uint64_t{kQueue}), call_.get()) &&
         send(kSetRingKick, bytes_of(std::uint64_t{kQueue}), kick_.get());
}

bool FuseClient::open() {
  if (map_ == nullptr || !set_up_queue()) return false;
  // The form of protocol 7.31: later ones have more behind it.
  struct {
    std::uint32_t major = 7, minor = 31, readahead = 131072, flags = 0;
  } hello;
  const FuseReply reply = request(FUSE_INIT, 0, bytes_of(hello));
  return reply.answered && reply.error == 0;
}

FuseReply FuseClient::request(std::uint32_t opcode, std::uint64_t node,
                              const std::string& arguments) {
  fuse_in_header header{};
  header.len = static_cast<std::uint32_t>(sizeof header + arguments.size());
  header.opcode = opcode;
  header.unique = ++unique_;
  header.nodeid = node;
  const std::string text = bytes_of(header) + arguments;
  std::memcpy(map_ + kOut, text.data(), text.size());
  std::memset(map_ + kIn, 0, sizeof(fuse_out_header));

  auto* descriptors = reinterpret_cast<vring_desc*>(map_);
  descriptors[0] = {kOut, static_cast<std::uint32_t>(text.size()), VRING_DESC_F_NEXT, 1};
  descriptors[1] = {kIn, kInBytes, VRING_DESC_F_WRITE, 0};
  auto* available = reinterpret_cast<vring_avail*>(map_ + kAvailable);
  available->ring[sent_ % kRingSize] = 0;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  available->idx = ++sent_;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const std::uint64_t one = 1;
  if (::write(kick_.get(), &one, sizeof one) != sizeof one) return {};

  const auto* used = reinterpret_cast<const volatile vring_used*>(map_ + kUsed);
  while (used->idx != sent_) {
    pollfd ready{call_.get(), POLLIN, 0};
    std::uint64_t times = 0;
    if (::poll(&ready, 1, kPatienceMs) != 1) return {};
    if (::read(call_.get(), &times, sizeof times) != sizeof times) return {};
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  fuse_out_header answer{};
  std::memcpy(&answer, map_ + kIn, sizeof answer);
  FuseReply reply;
  reply.answered =
      answer.unique == header.unique && answer.len >= sizeof answer && answer.len <= kInBytes;
  if (!reply.answered) return reply;
  reply.error = -answer.error;
  reply.payload.assign(reinterpret_cast<const char*>(map_ + kIn + sizeof answer),
                       answer.len - sizeof answer);
  return reply;
}

}  // namespace agent_vm::test

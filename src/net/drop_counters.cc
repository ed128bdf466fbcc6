#include "net/drop_counters.h"

#include <endian.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

namespace agent_vm {
namespace {

struct Attribute {
  std::uint16_t type = 0;
  std::string_view data;
};

// Takes the first attribute off `rest`; false at the end, or when it does not fit.
bool take_attribute(std::string_view& rest, Attribute& attribute) {
  nlattr header{};
  if (rest.size() < sizeof header) return false;
  std::memcpy(&header, rest.data(), sizeof header);
  if (header.nla_len < sizeof header || header.nla_len > rest.size()) return false;
  attribute.type = header.nla_type & NLA_TYPE_MASK;
  attribute.data = rest.substr(sizeof header, header.nla_len - sizeof header);
  rest.remove_prefix(std::min<std::size_t>(NLA_ALIGN(header.nla_len), rest.size()));
  return true;
}

std::uint64_t packets_in(std::string_view counter) {
  Attribute attribute;
  while (take_attribute(counter, attribute)) {
    std::uint64_t value = 0;
    if (attribute.type != NFTA_COUNTER_PACKETS || attribute.data.size() != sizeof value) continue;
    std::memcpy(&value, attribute.data.data(), sizeof value);
    return be64toh(value);
  }
  return 0;
}

void add_object(std::string_view message, DropCounts& counts) {
  if (message.size() < NLMSG_ALIGN(sizeof(nfgenmsg))) return;
  message.remove_prefix(NLMSG_ALIGN(sizeof(nfgenmsg)));
  std::string name;
  std::string_view data;
  Attribute attribute;
  while (take_attribute(message, attribute)) {
    if (attribute.type == NFTA_OBJ_NAME) name = attribute.data.substr(0, attribute.data.find('\0'));
    if (attribute.type == NFTA_OBJ_DATA) data = attribute.data;
  }
  // A bare "tcp" is a word of the filter's own language.
  constexpr std::string_view kPrefix = "dropped_";
  if (name.starts_with(kPrefix)) counts[name.substr(kPrefix.size())] = packets_in(data);
}

// True when the dump has ended.
Result<bool> take_messages(std::string_view rest, DropCounts& counts) {
  while (rest.size() >= sizeof(nlmsghdr)) {
    nlmsghdr header{};
    std::memcpy(&header, rest.data(), sizeof header);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > rest.size()) break;
    if (header.nlmsg_type == NLMSG_DONE) return true;
    if (header.nlmsg_type == NLMSG_ERROR) {
      nlmsgerr error{};
      std::memcpy(&error, rest.data() + sizeof header,
                  std::min<std::size_t>(sizeof error, rest.size() - sizeof header));
      return fail_errno(-error.error, "cannot read the packet filter's counters");
    }
    add_object(rest.substr(sizeof header, header.nlmsg_len - sizeof header), counts);
    rest.remove_prefix(std::min<std::size_t>(NLMSG_ALIGN(header.nlmsg_len), rest.size()));
  }
  return false;
}

}  // namespace

Result<Fd> make_filter_socket() {
  Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  // The kernel answers while it is asked; this is for a kernel that does not.
  const timeval patience{.tv_sec = 1, .tv_usec = 0};
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0)
    return fail_errno(errno, "cannot make a socket to the packet filter");
  return fd;
}

Result<DropCounts> read_drop_counts(int filter_socket) {
  struct {
    nlmsghdr header;
    nfgenmsg message;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETOBJ;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.message.nfgen_family = NFPROTO_INET;
  if (::send(filter_socket, &request, sizeof request, 0) != sizeof request)
    return fail_errno(errno, "cannot ask the packet filter for its counters");
  DropCounts counts;
  std::array<char, 16384> buffer{};
  while (true) {
    const ssize_t got = ::recv(filter_socket, buffer.data(), buffer.size(), 0);
    if (got <= 0) return fail_errno(errno, "the packet filter does not tell its counters");
    if (TRY(take_messages({buffer.data(), static_cast<std::size_t>(got)}, counts))) return counts;
  }
}

}  // namespace agent_vm

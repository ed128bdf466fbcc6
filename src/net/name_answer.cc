#include "net/name_answer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "net/address_plan.h"

namespace agent_vm {
namespace {

// RFC 1035, 4.1.1.
constexpr std::size_t kHeader = 12;
constexpr unsigned kTypeA = 1;
constexpr unsigned kClassInternet = 1;
constexpr std::size_t kMostName = 255;

unsigned read16(std::string_view bytes, std::size_t at) {
  return static_cast<unsigned>(static_cast<unsigned char>(bytes[at])) << 8U |
         static_cast<unsigned char>(bytes[at + 1]);
}

// Where the name that begins behind the header ends; nothing when it does not end well. A question
// has no compressed names.
std::optional<std::size_t> end_of_name(std::string_view query) {
  std::size_t at = kHeader;
  while (at < query.size() && at - kHeader < kMostName) {
    const auto length = static_cast<unsigned char>(query[at]);
    ++at;
    if (length == 0) return at;
    if (length > 63) return std::nullopt;
    at += length;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> answer_query(std::string_view query) {
  if (query.size() < kHeader) return std::nullopt;
  const unsigned flags = read16(query, 2);
  // A question (not an answer), of the ordinary kind, exactly one.
  if ((flags & 0xF800U) != 0 || read16(query, 4) != 1) return std::nullopt;
  const auto name_end = end_of_name(query);
  if (!name_end || query.size() < *name_end + 4) return std::nullopt;
  const bool known =
      read16(query, *name_end) == kTypeA && read16(query, *name_end + 2) == kClassInternet;

  std::string answer(query.substr(0, 2));
  answer += static_cast<char>(0x84 | (flags >> 8U & 0x01U));  // answer, authoritative; RD as asked
  answer += static_cast<char>(0x80);                          // recursion available, no error
  answer.append({0, 1, 0, static_cast<char>(known ? 1 : 0), 0, 0, 0, 0});
  answer += query.substr(kHeader, *name_end + 4 - kHeader);
  if (known) {
    answer.append({static_cast<char>(0xC0), kHeader, 0, kTypeA, 0, kClassInternet});
    answer.append({0, 0, 0, 60, 0, 4});  // seconds to keep it; length of the address
    in_addr gateway{};
    ::inet_pton(AF_INET, std::string(kGatewayAddress).c_str(), &gateway);
    answer.append(reinterpret_cast<const char*>(&gateway), sizeof gateway);
  }
  return answer;
}

Status run_resolver(int socket) {
  while (true) {
    std::array<char, 512> query{};
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    const ssize_t got = ::recvfrom(socket, query.data(), query.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &size);
    if (got < 0 && errno != EINTR) return fail_errno(errno, "cannot receive a query");
    if (got <= 0) continue;
    const auto answer = answer_query({query.data(), static_cast<std::size_t>(got)});
    if (!answer) continue;
    // Lost when the guest does not take it: it asks again.
    static_cast<void>(::sendto(socket, answer->data(), answer->size(), MSG_DONTWAIT,
                               reinterpret_cast<sockaddr*>(&from), size));
  }
}

}  // namespace agent_vm

#include <gmock/gmock.h>

#include "net/gateway.h"
#include "net/name_answer.h"
#include "net/uplink_filter.h"

namespace agent_vm {
namespace {

using testing::HasSubstr;

std::string query(std::string_view name, char type, char questions = 1) {
  std::string text("\x12\x34\x01\x00\x00", 5);
  text += questions;
  text.append(6, '\0');
  text += name;
  text.append({'\0', '\0', type, '\0', 1});
  return text;
}

const std::string kName(
    "\x07"
    "example\x03"
    "org",
    12);

TEST(NameAnswer, S18_EveryNameIsAtTheGateway) {
  const auto answer = answer_query(query(kName, 1));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->substr(0, 2), "\x12\x34");
  EXPECT_EQ((*answer)[7], 1);  // one answer
  EXPECT_TRUE(answer->ends_with(std::string("\x00\x04\x0a\x42\x00\x01", 6)));
}

TEST(NameAnswer, OtherTypesHaveNoData) {
  const auto answer = answer_query(query(kName, 28));
  ASSERT_TRUE(answer);
  EXPECT_EQ((*answer)[3] & 0x0F, 0);  // no error
  EXPECT_EQ((*answer)[7], 0);
}

TEST(NameAnswer, WhatIsNoQuestionHasNoAnswer) {
  EXPECT_FALSE(answer_query(""));
  EXPECT_FALSE(answer_query(query(kName, 1).substr(0, 20)));
  EXPECT_FALSE(answer_query(query(kName, 1, 2)));
  EXPECT_FALSE(answer_query(query(std::string("\xC0\x0C", 2), 1)));  // a compressed name
  EXPECT_FALSE(answer_query(query(std::string(300, '\x01'), 1)));
  std::string an_answer = query(kName, 1);
  an_answer[2] = static_cast<char>(0x81);
  EXPECT_FALSE(answer_query(an_answer));
}

class UplinkFilterTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const auto& range : refused_ranges()) filter_.refused.push_back(*parse_ip_range(range));
    filter_.of_host = {parse_ip_range("203.0.113.9")->first};
    filter_.resolver = parse_ip_range("10.66.1.3")->first;
  }
  bool leaves(const std::string& to, unsigned port, std::uint8_t protocol = 6) const {
    return filter_.may_leave(frame(to, port, protocol));
  }
  static std::vector<std::uint8_t> frame(const std::string& to, unsigned port,
                                         std::uint8_t protocol = 6) {
    std::vector<std::uint8_t> bytes(14 + 40, 0);
    bytes[12] = 0x08;
    bytes[14] = 0x45;
    bytes[14 + 9] = protocol;
    const std::uint32_t address = parse_ip_range(to)->first;
    for (unsigned i = 0; i < 4; ++i)
      bytes[14 + 16 + i] = static_cast<std::uint8_t>(address >> (24U - 8U * i));
    bytes[14 + 22] = static_cast<std::uint8_t>(port >> 8U);
    bytes[14 + 23] = static_cast<std::uint8_t>(port & 0xFFU);
    return bytes;
  }
  UplinkFilter filter_;
};

TEST_F(UplinkFilterTest, S13_OnlyTheWebAndTheResolver) {
  EXPECT_TRUE(leaves("203.0.113.80", 443));
  EXPECT_TRUE(leaves("203.0.113.80", 80));
  EXPECT_TRUE(leaves("10.66.1.3", 53, 17));
  EXPECT_TRUE(leaves("10.66.1.3", 53, 6));
  EXPECT_FALSE(leaves("203.0.113.80", 443, 17));  // QUIC
  EXPECT_FALSE(leaves("203.0.113.80", 25));
  EXPECT_FALSE(leaves("203.0.113.80", 53, 17));
  EXPECT_FALSE(leaves("203.0.113.80", 0, 1));
  EXPECT_FALSE(leaves("10.66.1.3", 443));
}

TEST_F(UplinkFilterTest, S15_NoPrivateAddressAndNoneOfTheHosts) {
  for (const auto* address :
       {"127.0.0.1", "10.66.1.2", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254",
        "100.64.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "168.63.129.16", "203.0.113.9"}) {
    EXPECT_FALSE(leaves(address, 443)) << address;
  }
  filter_.allowed = {*parse_ip_range("192.168.1.0/24")};
  EXPECT_TRUE(leaves("192.168.1.1", 443));
  EXPECT_FALSE(leaves("192.168.2.1", 443));
  EXPECT_FALSE(leaves("192.168.1.1", 22));
}

TEST_F(UplinkFilterTest, OtherFramesAreDropped) {
  auto packet = frame("203.0.113.80", 443);
  packet[12] = 0x86;
  packet[13] = 0xDD;
  EXPECT_FALSE(filter_.may_leave(packet));  // IPv6
  packet = frame("203.0.113.80", 443);
  packet[14 + 7] = 1;
  EXPECT_FALSE(filter_.may_leave(packet));  // a fragment
  packet = frame("203.0.113.80", 443);
  packet[14] = 0x4F;  // a header longer than the packet
  EXPECT_FALSE(filter_.may_leave(packet));
  for (std::size_t size = 0; size < 38; ++size) {
    packet = frame("203.0.113.80", 443);
    packet.resize(size);
    EXPECT_FALSE(filter_.may_leave(packet)) << size;
  }
}

TEST(GatewayRules, S13_DropByDefaultForwardNothing) {
  const std::string rules = gateway_rules();
  for (const auto* chain : {"input", "forward", "output"}) {
    EXPECT_THAT(rules, HasSubstr(fmt::format("hook {} priority filter; policy drop;", chain)));
  }
  EXPECT_THAT(rules, testing::Not(HasSubstr("forward accept")));
}

}  // namespace
}  // namespace agent_vm

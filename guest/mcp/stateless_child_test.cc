#include "mcp/stateless_child.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mcp/json_object.h"

namespace agent_vm::mcp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kInitialize =
    R"({"jsonrpc":"2.0","id":"i","method":"initialize","params":{"protocolVersion":"2025-06-18",)"
    R"("capabilities":{"elicitation":{}},"clientInfo":{"name":"c","version":"1"}}})";
constexpr const char* kRefusal =
    R"({"jsonrpc":"2.0","id":"i","error":{"code":-32601,"message":"no"}})";

std::vector<std::string> texts(const std::vector<StatelessChild::ToClient>& lines) {
  std::vector<std::string> out;
  for (const auto& line : lines) out.push_back(line.text);
  return out;
}

class StatelessChildTest : public testing::Test {
 protected:
  void SetUp() override {
    EXPECT_THAT(child.from_client(kInitialize).to_server, ElementsAre(kInitialize));
    const auto probe = child.from_server(kRefusal);
    EXPECT_THAT(probe.to_client, IsEmpty());
    ASSERT_THAT(probe.to_server, ElementsAre(HasSubstr("server/discover")));
    const auto found = child.from_server(
        R"({"jsonrpc":"2.0","id":"agent-vm-discover","result":{"supportedVersions":["2026-07-28"],)"
        R"("capabilities":{"tools":{"listChanged":true}},"instructions":"x"}})");
    ASSERT_EQ(found.to_client.size(), 1U);
    const std::string_view result = member_of(found.to_client[0].text, "result");
    EXPECT_EQ(member_of(result, "protocolVersion"), "\"2025-06-18\"");
    EXPECT_EQ(member_of(result, "instructions"), "\"x\"");
  }
  std::string call(const char* id = "1") {
    return R"({"jsonrpc":"2.0","id":)" + std::string(id) +
           R"(,"method":"tools/call","params":{"name":"t","n":1e400}})";
  }
  StatelessChild child;
};

TEST(StatelessChild, AServerThatTakesTheHandshakeIsLeftAlone) {
  StatelessChild child;
  child.from_client(kInitialize);
  const std::string answer = R"({"jsonrpc":"2.0","id":"i","result":{}})";
  EXPECT_THAT(texts(child.from_server(answer).to_client), ElementsAre(answer));
  EXPECT_TRUE(child.transparent());
}

TEST(StatelessChild, AServerThatKnowsNeitherIsRefusedAsItRefused) {
  StatelessChild child;
  child.from_client(kInitialize);
  child.from_server(kRefusal);
  const auto lines = child.from_server(
      R"({"jsonrpc":"2.0","id":"agent-vm-discover","error":{"code":-32601,"message":"no"}})");
  EXPECT_THAT(texts(lines.to_client), ElementsAre(kRefusal));
}

TEST_F(StatelessChildTest, RequestsGetTheirMetadataAndKeepTheirBytes) {
  const auto lines = child.from_client(call());
  ASSERT_EQ(lines.to_server.size(), 1U);
  const std::string_view params = member_of(lines.to_server[0], "params");
  EXPECT_EQ(member_of(params, "n"), "1e400");
  const std::string_view meta = member_of(params, "_meta");
  EXPECT_EQ(member_of(meta, "io.modelcontextprotocol/protocolVersion"), "\"2026-07-28\"");
  EXPECT_EQ(member_of(meta, "io.modelcontextprotocol/clientCapabilities"), R"({"elicitation":{}})");
  EXPECT_THAT(texts(child.from_client(R"({"jsonrpc":"2.0","id":2,"method":"ping"})").to_client),
              ElementsAre(R"({"jsonrpc":"2.0","id":2,"result":{}})"));
}

TEST_F(StatelessChildTest, AnInterimResultBecomesRequestsAndTheirAnswersARepetition) {
  child.from_client(call());
  const auto asked = child.from_server(
      R"({"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","requestState":"s",)"
      R"("inputRequests":{"a":{"method":"elicitation/create","params":{"message":"?"}},)"
      R"("b":{"method":"roots/list"}}}})");
  ASSERT_EQ(asked.to_client.size(), 2U);
  EXPECT_EQ(asked.to_client[0].about, "1");
  EXPECT_THAT(asked.to_client[0].text, HasSubstr(R"("id":"a","method":"elicitation/create")"));
  EXPECT_THAT(child.from_client(R"({"jsonrpc":"2.0","id":"b","result":{"roots":[]}})").to_server,
              IsEmpty());
  const auto again = child.from_client(
      R"({"jsonrpc":"2.0","id":"a","error":{"code":-1,"message":"user went away"}})");
  ASSERT_EQ(again.to_server.size(), 1U);
  const std::string_view params = member_of(again.to_server[0], "params");
  EXPECT_EQ(member_of(params, "requestState"), "\"s\"");
  EXPECT_EQ(member_of(params, "inputResponses"), R"({"a":{"action":"cancel"},"b":{"roots":[]}})");
  const std::string id(member_of(again.to_server[0], "id"));
  const auto done = child.from_server(R"({"jsonrpc":"2.0","id":)" + id + R"(,"result":{"x":1}})");
  EXPECT_THAT(texts(done.to_client), ElementsAre(R"({"jsonrpc":"2.0","id":1,"result":{"x":1}})"));
}

TEST_F(StatelessChildTest, SubscriptionsAreOneAndFollowWhatTheClientWants) {
  const auto first = child.from_client(R"({"jsonrpc":"2.0","method":"notifications/initialized"})");
  ASSERT_THAT(first.to_server, ElementsAre(HasSubstr(R"("toolsListChanged":true)")));
  const auto more = child.from_client(
      R"({"jsonrpc":"2.0","id":3,"method":"resources/subscribe","params":{"uri":"a:b"}})");
  EXPECT_THAT(more.to_server, ElementsAre(HasSubstr(R"("resourceSubscriptions":["a:b"])"),
                                          HasSubstr("notifications/cancelled")));
  const std::string changed =
      R"({"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{}})";
  EXPECT_THAT(texts(child.from_server(changed).to_client), ElementsAre(changed));
}

TEST_F(StatelessChildTest, ACancelledCallIsCancelledThereAndItsQuestionsAreForgotten) {
  child.from_client(call());
  child.from_server(R"({"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required",)"
                    R"("inputRequests":{"a":{"method":"roots/list"}}}})");
  const auto lines = child.from_client(
      R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}})");
  EXPECT_THAT(lines.to_server, ElementsAre(HasSubstr(R"("requestId":1)")));
  EXPECT_THAT(child.from_client(R"({"jsonrpc":"2.0","id":"a","result":{"roots":[]}})").to_server,
              IsEmpty());
}

}  // namespace
}  // namespace agent_vm::mcp

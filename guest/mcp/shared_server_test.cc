#include "mcp/shared_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mcp/json_object.h"

namespace agent_vm::mcp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr std::string_view kAll = R"({"sampling":{},"elicitation":{},"roots":{}})";
const StateSigner kSigner(std::string(32, 'k'));

MirrorHeaders headers_for(std::string_view method, std::string_view name = "") {
  MirrorHeaders headers;
  headers.protocol_version = kStatelessVersion;
  headers.method = std::string(method);
  if (!name.empty()) headers.name = std::string(name);
  return headers;
}

std::string body_of(std::string_view id, std::string_view method, std::string_view rest,
                    std::string_view capabilities = kAll, std::string_view meta = "") {
  return R"({"jsonrpc":"2.0","id":)" + std::string(id) + R"(,"method":")" + std::string(method) +
         R"(","params":{)" + std::string(rest) + (rest.empty() ? "" : ",") +
         R"("_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",)" +
         R"("io.modelcontextprotocol/clientCapabilities":)" + std::string(capabilities) +
         std::string(meta) + "}}}";
}

StatelessRequest parsed(const std::string& body, std::string_view name = "") {
  const auto envelope = parse_message(body);
  auto request = parse_stateless(body, *envelope, headers_for(envelope->method, name));
  EXPECT_TRUE(request) << (request ? "" : request.error().error.message);
  return request.value_or(StatelessRequest());
}
StatelessRequest call(std::string_view id, std::string_view extra = "",
                      std::string_view meta = "") {
  return parsed(body_of(id, "tools/call", R"("name":"t","arguments":{"a":1})" + std::string(extra),
                        kAll, meta),
                "t");
}

class SharedServerTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto first = server.server_started();
    ASSERT_EQ(first.size(), 1U);
    EXPECT_EQ(member_of(member_of(first[0], "params"), "capabilities"), kAll);
    const auto effects = server.server_line(
        R"({"jsonrpc":"2.0","id":"agent-vm-initialize","result":{"protocolVersion":"2025-11-25",)"
        R"("capabilities":{"tools":{"listChanged":true},"logging":{},"resources":{"subscribe":true}},)"
        R"("serverInfo":{"name":"s","version":"1"}}})");
    ASSERT_TRUE(effects.became_ready);
    EXPECT_THAT(effects.to_server, ElementsAre(HasSubstr("notifications/initialized")));
  }
  std::vector<std::string> messages(StreamId id) {
    std::vector<std::string> out;
    const EventStream* stream = server.stream(id);
    std::uint64_t cursor = 0;
    while (stream != nullptr) {
      const auto event = stream->after(cursor);
      if (!event) break;
      out.push_back(*event->message);
      cursor = event->sequence;
    }
    return out;
  }
  std::string state_of(StreamId id) {
    return string_member_of(member_of(messages(id).back(), "result"), "requestState").value_or("");
  }
  static std::string elicit(std::string_view id) {
    return R"({"jsonrpc":"2.0","id":)" + std::string(id) +
           R"(,"method":"elicitation/create","params":{"message":"?"}})";
  }
  static std::string result(std::string_view id) {
    return R"({"jsonrpc":"2.0","id":)" + std::string(id) + R"(,"result":{"x":1e400}})";
  }
  static std::string retry_with(const std::string& state, const std::string& responses) {
    return R"(,"requestState":)" + quote_json(state) + R"(,"inputResponses":)" + responses;
  }

  SharedServer server{7, std::string(kAll), "", kSigner, std::make_shared<ServerKnowledge>()};
};

TEST_F(SharedServerTest, RequestsTravelUnderOtherIdsAndKeepTheirBytes) {
  const auto accepted = server.request(call(R"("same")", R"(,"n":1e400)"), 0);
  const auto other = server.request(call(R"("same")"), 0);
  ASSERT_TRUE(accepted && other);
  EXPECT_EQ(accepted->to_server.back(), R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":)"
                                        R"({"name":"t","arguments":{"a":1},"n":1e400}})");
  server.server_line(result("2"));
  server.server_line(result("1"));
  const auto got = messages(accepted->stream);
  ASSERT_EQ(got.size(), 1U);
  EXPECT_THAT(got[0], HasSubstr(R"("id":"same")"));
  EXPECT_THAT(got[0], HasSubstr(R"("x":1e400)"));
  EXPECT_THAT(got[0], HasSubstr(R"("resultType":"complete")"));
  EXPECT_THAT(got[0], HasSubstr(R"("io.modelcontextprotocol/serverInfo":{"name":"s")"));
  EXPECT_TRUE(server.stream(accepted->stream)->finished());
}

TEST_F(SharedServerTest, AQuestionBecomesAResultAndItsAnswerGoesBackToTheServer) {
  const auto first = server.request(call("1"), 100);
  server.server_line(elicit("\"who\""));
  ASSERT_TRUE(server.input_wanted(first->stream));
  server.conclude_with_input(first->stream, 100);
  EXPECT_THAT(messages(first->stream).back(),
              HasSubstr(R"("inputRequests":{"who":{"method":"elicitation/create")"));
  EXPECT_TRUE(server.parked());

  const auto retry =
      call("2", retry_with(state_of(first->stream), R"({"who":{"action":"accept"},"x":{}})"));
  const auto second = server.request(retry, 101);
  ASSERT_TRUE(second);
  EXPECT_THAT(second->to_server,
              ElementsAre(R"({"jsonrpc":"2.0","id":"who","result":{"action":"accept"}})"));
  server.server_line(result("1"));
  EXPECT_THAT(messages(second->stream), ElementsAre(HasSubstr(R"("id":2,"result":{"x":1e400)")));
}

TEST_F(SharedServerTest, ARequestStateHoldsOnceForItsRequestUnchangedAndNotForEver) {
  const auto first = server.request(call("1"), 100);
  server.server_line(elicit("5"));
  server.conclude_with_input(first->stream, 100);
  const std::string state = state_of(first->stream);
  const std::string answer = R"({"input-5":{"action":"decline"}})";
  const auto refused = [&](const StatelessRequest& request, std::int64_t now) {
    const auto accepted = server.request(request, now);
    return accepted ? "accepted" : accepted.error().error.message;
  };
  EXPECT_THAT(refused(call("2", retry_with(state + "0", answer)), 101), HasSubstr("was changed"));
  EXPECT_THAT(refused(call("2", retry_with(state, answer)), 100 + 601), HasSubstr("expired"));
  const auto other = parsed(
      body_of("2", "tools/call", R"("name":"t","arguments":{"a":2})" + retry_with(state, answer)),
      "t");
  EXPECT_THAT(refused(other, 101), HasSubstr("another request"));
  SharedServer foreign(8, std::string(kAll), "", kSigner, std::make_shared<ServerKnowledge>());
  const auto elsewhere = foreign.request(call("2", retry_with(state, answer)), 101);
  EXPECT_FALSE(elsewhere);
  EXPECT_EQ(refused(call("2", retry_with(state, answer)), 101), "accepted");
  EXPECT_THAT(refused(call("3", retry_with(state, answer)), 101), HasSubstr("used already"));
}

TEST_F(SharedServerTest, WhatIsMissingIsAskedAgain) {
  const auto first = server.request(call("1"), 0);
  server.server_line(elicit("1"));
  server.server_line(elicit("2"));
  server.conclude_with_input(first->stream, 0);
  const auto second =
      server.request(call("2", retry_with(state_of(first->stream), R"({"input-2":{}})")), 1);
  ASSERT_TRUE(second);
  EXPECT_TRUE(server.input_wanted(second->stream));
  server.conclude_with_input(second->stream, 1);
  EXPECT_THAT(messages(second->stream).back(), HasSubstr("input-1"));
  EXPECT_THAT(messages(second->stream).back(), Not(HasSubstr("input-2")));
}

TEST_F(SharedServerTest, AnAnswerThatCameBeforeItsQuestionIsUsed) {
  ASSERT_TRUE(server.request(call("1", R"(,"inputResponses":{"who":{"action":"accept"}})"), 0));
  const auto effects = server.server_line(elicit("\"who\""));
  EXPECT_THAT(effects.to_server, ElementsAre(HasSubstr(R"("result":{"action":"accept"})")));
}

TEST_F(SharedServerTest, AQuestionOfOneAmongSeveralWaitsUntilItIsClearWhoseItIs) {
  const auto one = server.request(call("1"), 0);
  const auto two = server.request(call("2"), 0);
  EXPECT_THAT(server.server_line(elicit("1")).to_server, IsEmpty());
  EXPECT_FALSE(server.input_wanted(one->stream) || server.input_wanted(two->stream));
  const auto effects = server.server_line(result("1"));
  EXPECT_THAT(effects.touched, testing::Contains(two->stream));
  EXPECT_TRUE(server.input_wanted(two->stream));
  // Whoever knows it better is believed.
  const auto three = server.request(call("3"), 0);
  server.server_line(elicit("2"), "3");
  EXPECT_TRUE(server.input_wanted(three->stream));
}

TEST_F(SharedServerTest, AfterACancelledCallNobodyGetsAQuestionThatMayBeItsOwn) {
  const auto one = server.request(call("1"), 0);
  EXPECT_THAT(server.cancel(one->stream), ElementsAre(HasSubstr(R"("requestId":1)")));
  EXPECT_THAT(server.cancel(one->stream), IsEmpty());
  const auto two = server.request(call("2"), 0);
  EXPECT_THAT(server.server_line(elicit("1")).to_server, ElementsAre(HasSubstr("cannot tell")));
  EXPECT_FALSE(server.input_wanted(two->stream));
  EXPECT_TRUE(server.tainted());
  EXPECT_FALSE(server.server_line(result("1")).junk);  // its late answer is expected, once
  EXPECT_TRUE(server.server_line(result("1")).junk);
}

TEST_F(SharedServerTest, WhatTheClientDidNotDeclareIsNotAsked) {
  SharedServer poor(1, "{}", "", kSigner, std::make_shared<ServerKnowledge>());
  poor.server_started();
  poor.server_line(R"({"jsonrpc":"2.0","id":"agent-vm-initialize","result":{"capabilities":{}}})");
  const auto accepted =
      poor.request(parsed(body_of("1", "tools/call", R"("name":"t")", "{}"), "t"), 0);
  const auto effects = poor.server_line(elicit("9"));
  EXPECT_THAT(effects.to_server,
              ElementsAre(HasSubstr("did not declare"), HasSubstr("notifications/cancelled")));
  const EventStream* stream = poor.stream(accepted->stream);
  EXPECT_THAT(*stream->after(0)->message,
              HasSubstr(R"("requiredCapabilities":{"elicitation":{}})"));
  EXPECT_TRUE(stream->finished());
}

TEST_F(SharedServerTest, ProgressAndLogsReachOnlyWhoAskedForThem) {
  const auto one = server.request(
      call("1", "", R"(,"progressToken":"p","io.modelcontextprotocol/logLevel":"warning")"), 0);
  EXPECT_THAT(one->to_server.front(), HasSubstr(R"("level":"warning")"));
  EXPECT_THAT(one->to_server.back(), HasSubstr(R"("_meta":{"progressToken":1})"));
  server.server_line(
      R"({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}})");
  server.server_line(
      R"({"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}})");
  server.server_line(
      R"({"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":2}})");
  EXPECT_THAT(messages(one->stream),
              ElementsAre(HasSubstr(R"("progressToken":"p")"), HasSubstr(R"("data":2)")));
  const auto two = server.request(call("2"), 0);
  server.server_line(
      R"({"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":3}})");
  EXPECT_THAT(messages(two->stream), IsEmpty());
}

TEST_F(SharedServerTest, ListenersHearWhatTheyAskedForAndAgainAfterARestart) {
  const auto listen = server.request(
      parsed(body_of("\"l\"", "subscriptions/listen",
                     R"("notifications":{"toolsListChanged":true,"promptsListChanged":true,)"
                     R"("resourceSubscriptions":["a:1"]})")),
      0);
  ASSERT_TRUE(listen);
  EXPECT_THAT(listen->to_server, ElementsAre(HasSubstr("resources/subscribe")));
  const std::string ack = messages(listen->stream).at(0);
  EXPECT_THAT(ack, HasSubstr("notifications/subscriptions/acknowledged"));
  EXPECT_THAT(ack, HasSubstr(R"("io.modelcontextprotocol/subscriptionId":"l")"));
  EXPECT_THAT(ack, Not(HasSubstr("promptsListChanged")));  // the server has none
  for (const char* method : {"tools/list_changed", "prompts/list_changed"}) {
    server.server_line(R"({"jsonrpc":"2.0","method":"notifications/)" + std::string(method) +
                       "\"}");
  }
  for (const char* uri : {"a:1", "a:2"}) {
    server.server_line(
        R"({"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":")" +
        std::string(uri) + "\"}}");
  }
  EXPECT_THAT(messages(listen->stream),
              ElementsAre(ack, HasSubstr("tools/list_changed"), HasSubstr("a:1")));
  EXPECT_TRUE(server.wants_server());
  server.server_lost("gone");
  EXPECT_FALSE(server.stream(listen->stream)->finished());
  server.server_started();
  const auto effects = server.server_line(
      R"({"jsonrpc":"2.0","id":"agent-vm-initialize","result":{"capabilities":{}}})");
  EXPECT_THAT(effects.to_server, ElementsAre(HasSubstr("initialized"), HasSubstr("a:1")));
  server.cancel(listen->stream);
  EXPECT_FALSE(server.wants_server());
}

TEST_F(SharedServerTest, ErrorsOfEarlierRevisionsAreTranslated) {
  const auto read =
      server.request(parsed(body_of("1", "resources/read", R"("uri":"x:y")"), "x:y"), 0);
  server.server_line(R"({"jsonrpc":"2.0","id":1,"error":{"code":-32002,"message":"no"}})");
  EXPECT_THAT(messages(read->stream).at(0), HasSubstr(R"("code":-32602)"));
  EXPECT_THAT(messages(read->stream).at(0), HasSubstr(R"("data":{"uri":"x:y"})"));
}

TEST_F(SharedServerTest, ALostServerFailsWhatIsInFlightOnceAndParkedCallsEnd) {
  const auto parked = server.request(call("1"), 0);
  server.server_line(elicit("1"));
  server.conclude_with_input(parked->stream, 0);
  const std::string state = state_of(parked->stream);
  const auto active = server.request(parsed(body_of("2", "tools/list", "")), 0);
  server.server_lost("it died");
  EXPECT_THAT(messages(active->stream), ElementsAre(HasSubstr("it died")));
  const auto retry = server.request(call("3", retry_with(state, "{}")), 1);
  ASSERT_FALSE(retry);
  EXPECT_THAT(retry.error().error.message, HasSubstr("has ended"));
}

TEST_F(SharedServerTest, ParkedCallsAreGivenUpWhenTheirStateExpires) {
  const auto parked = server.request(call("1"), 0);
  server.server_line(elicit("1"));
  server.conclude_with_input(parked->stream, 0);
  EXPECT_THAT(server.sweep(599), IsEmpty());
  EXPECT_THAT(server.sweep(600), ElementsAre(HasSubstr("notifications/cancelled")));
  EXPECT_EQ(server.in_flight(), 0U);
}

TEST(StatelessRequest, HeadersAndBodyMustAgree) {
  const std::string body = body_of("1", "tools/call", R"("name":"t\u00e9")");
  const auto envelope = parse_message(body);
  const auto code = [&](const MirrorHeaders& headers) {
    const auto request = parse_stateless(body, *envelope, headers);
    return request ? 0 : request.error().error.code;
  };
  EXPECT_EQ(code(headers_for("tools/call", "=?base64?dMOp?=")), 0);
  EXPECT_EQ(code(headers_for("tools/call", "=?base64?dMOp=?=")), kHeaderMismatch);
  EXPECT_EQ(code(headers_for("tools/call", "t")), kHeaderMismatch);
  EXPECT_EQ(code(headers_for("tools/call")), kHeaderMismatch);
  EXPECT_EQ(code(headers_for("TOOLS/CALL", "=?base64?dMOp?=")), kHeaderMismatch);
  MirrorHeaders other = headers_for("tools/call", "=?base64?dMOp?=");
  other.protocol_version = "2025-11-25";
  EXPECT_EQ(code(other), kHeaderMismatch);
}

TEST(ParamHeaders, RepeatWhatTheBodySays) {
  ParamHeaders params;
  params.learn(R"({"tools":[{"name":"t","inputSchema":{"properties":{"a":{"x-mcp-header":"A"},)"
               R"("b":{"properties":{"c":{"type":"integer","x-mcp-header":"C"}}}}}}]})");
  const std::string arguments = R"({"a":"x y","b":{"c":42}})";
  EXPECT_FALSE(params.mismatch("t", arguments, {{"a", "x y"}, {"c", "42.0"}}));
  EXPECT_TRUE(params.mismatch("t", arguments, {{"a", "x y"}}));
  EXPECT_TRUE(params.mismatch("t", arguments, {{"a", "x"}, {"c", "42"}}));
  EXPECT_TRUE(params.mismatch("t", R"({"a":null})", {{"a", "x"}}));
  EXPECT_FALSE(params.mismatch("t", R"({"a":null})", {}));
  EXPECT_FALSE(params.mismatch("unknown", arguments, {}));
}

}  // namespace
}  // namespace agent_vm::mcp

#include "mcp/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace agent_vm::mcp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string initialize(std::string_view version = "2025-11-25") {
  return R"({"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":")" +
         std::string(version) + R"(","capabilities":{}}})";
}
std::string initialize_result(std::string_view version = "2025-11-25") {
  return R"({"jsonrpc":"2.0","id":0,"result":{"protocolVersion":")" + std::string(version) +
         R"(","capabilities":{}}})";
}
std::string call(std::string_view id, std::string_view extra = "") {
  return R"({"jsonrpc":"2.0","id":)" + std::string(id) +
         R"(,"method":"tools/call","params":{"name":"x")" + std::string(extra) + "}}";
}
std::string result(std::string_view id) {
  return R"({"jsonrpc":"2.0","id":)" + std::string(id) + R"(,"result":{}})";
}

// Everything on a stream, in order.
std::vector<std::string> messages(Session& session, StreamId id) {
  std::vector<std::string> out;
  const EventStream* stream = session.stream(id);
  if (stream == nullptr) return out;
  std::uint64_t cursor = 0;
  while (const auto event = stream->after(cursor)) {
    out.push_back(*event->message);
    cursor = event->sequence;
  }
  return out;
}

class SessionTest : public testing::Test {
 protected:
  void establish(std::string_view version = "2025-11-25") {
    EXPECT_THAT(session.server_started(), IsEmpty());
    const auto accepted = session.post(initialize(version));
    ASSERT_TRUE(accepted);
    session.server_line(initialize_result(version));
    session.drop_stream(*accepted->stream);
    ASSERT_TRUE(session.established());
    ASSERT_TRUE(session.post(R"({"jsonrpc":"2.0","method":"notifications/initialized"})"));
  }
  StreamId post(const std::string& body) {
    const auto accepted = session.post(body);
    EXPECT_TRUE(accepted) << (accepted ? "" : accepted.error().error.message);
    return accepted && accepted->stream ? *accepted->stream : 0;
  }

  Session session{"s", "server"};
};

TEST_F(SessionTest, NothingPassesBeforeInitialize) {
  session.server_started();
  const auto refused = session.post(call("1"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, 400);
  EXPECT_EQ(refused.error().error.id, "1");
}

TEST_F(SessionTest, ASecondInitializeIsRefused) {
  establish();
  EXPECT_FALSE(session.post(initialize()));
}

TEST_F(SessionTest, BytesPassUnchangedOnOneLine) {
  establish();
  const std::string odd =
      "{\"jsonrpc\":\"2.0\",\n \"id\":\"a\\u0062\",\r\n\"method\":\"tools/call\",\"params\":"
      "{\"n\":9223372036854775808,\"x\":1e400,\"s\":\"\xE2\x80\xA8\"}}";
  const auto accepted = session.post(odd);
  ASSERT_TRUE(accepted);
  std::string expected = odd;
  to_one_line(expected);
  EXPECT_THAT(accepted->to_server, ElementsAre(expected));
  // The server may spell the id otherwise; its bytes reach the client as they are.
  session.server_line(result("\"ab\""));
  EXPECT_THAT(messages(session, *accepted->stream), ElementsAre(result("\"ab\"")));
  EXPECT_TRUE(session.stream(*accepted->stream)->finished());
}

TEST_F(SessionTest, ResponsesFindTheStreamOfTheirRequest) {
  establish();
  const StreamId first = post(call("1"));
  const StreamId second = post(call("\"1\""));
  session.server_line(result("\"1\""));
  EXPECT_THAT(messages(session, second), ElementsAre(result("\"1\"")));
  EXPECT_THAT(messages(session, first), IsEmpty());
  EXPECT_FALSE(session.stream(first)->finished());
}

TEST_F(SessionTest, ProgressFollowsItsToken) {
  establish();
  const StreamId first = post(call("1", R"(,"_meta":{"progressToken":"p1"})"));
  const StreamId second = post(call("2", R"(,"_meta":{"progressToken":2})"));
  const std::string progress =
      R"({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":2,"progress":1}})";
  session.server_line(progress);
  EXPECT_THAT(messages(session, second), ElementsAre(progress));
  EXPECT_THAT(messages(session, first), IsEmpty());
}

TEST_F(SessionTest, WhatBelongsToNoRequestGoesToTheOpenGet) {
  establish();
  const std::string log = R"({"jsonrpc":"2.0","method":"notifications/message","params":{}})";
  const StreamId first = post(call("1"));
  session.server_line(log);  // one request in flight: most likely its own
  EXPECT_THAT(messages(session, first), ElementsAre(log));
  post(call("2"));
  session.stream(kStandaloneStream)->attach();
  session.server_line(log);
  EXPECT_THAT(messages(session, kStandaloneStream), ElementsAre(log));
}

TEST_F(SessionTest, AnIdInFlightCannotBeUsedTwice) {
  establish();
  post(call("1"));
  EXPECT_FALSE(session.post(call("1")));
  session.server_line(result("1"));
  EXPECT_TRUE(session.post(call("1")));
}

TEST_F(SessionTest, CancelEndsTheStreamAndTheIdCanBeReused) {
  establish();
  const std::string cancel =
      R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}})";
  const StreamId first = post(call("1"));
  auto accepted = session.post(cancel);
  ASSERT_TRUE(accepted);
  EXPECT_THAT(accepted->to_server, ElementsAre(cancel));
  EXPECT_TRUE(session.stream(first)->finished());
  EXPECT_THAT(session.post(cancel)->to_server, IsEmpty());  // idempotent

  // The server has not seen the cancellation yet: its late answer is not the new request's.
  accepted = session.post(call("1"));
  ASSERT_TRUE(accepted);
  ASSERT_THAT(accepted->to_server, ElementsAre(HasSubstr("agent-vm-")));
  session.server_line(result("1"));
  EXPECT_THAT(messages(session, *accepted->stream), IsEmpty());
  const auto alias = parse_message(accepted->to_server[0]);
  session.server_line(result(alias->id));
  EXPECT_THAT(messages(session, *accepted->stream), ElementsAre(result("1")));
}

TEST_F(SessionTest, IdsThatJavaScriptWouldRoundTravelUnderAnAlias) {
  establish();
  const auto accepted = session.post(call("9007199254740993"));
  ASSERT_TRUE(accepted);
  EXPECT_THAT(accepted->to_server[0], testing::Not(HasSubstr("9007199254740993")));
  const auto alias = parse_message(accepted->to_server[0]);
  session.server_line(result(alias->id));
  EXPECT_THAT(messages(session, *accepted->stream), ElementsAre(result("9007199254740993")));
}

TEST_F(SessionTest, AnAnswerPassesOnlyToAQuestionOfThisServer) {
  establish();
  EXPECT_THAT(session.post(result("77"))->to_server, IsEmpty());
  session.server_line(R"({"jsonrpc":"2.0","id":77,"method":"sampling/createMessage","params":{}})");
  EXPECT_THAT(session.post(result("77"))->to_server, ElementsAre(result("77")));
  EXPECT_THAT(session.post(result("77"))->to_server, IsEmpty());
}

TEST_F(SessionTest, LostServerFailsWhatIsInFlightOnceAndReplaysTheHandshake) {
  establish();
  const StreamId stream = post(call("1"));
  session.server_line(R"({"jsonrpc":"2.0","id":5,"method":"roots/list"})");
  session.server_lost("it died");
  const auto got = messages(session, stream);
  ASSERT_EQ(got.size(), 3U);
  EXPECT_THAT(got[1], HasSubstr("notifications/cancelled"));
  EXPECT_THAT(got[2], HasSubstr("it died"));
  EXPECT_TRUE(session.stream(stream)->finished());
  EXPECT_FALSE(session.server_ready());

  const auto replay = session.server_started();
  ASSERT_EQ(replay.size(), 1U);
  EXPECT_THAT(replay[0], HasSubstr("initialize"));
  EXPECT_FALSE(session.server_ready());
  const auto id = std::string(parse_message(replay[0])->id);
  const auto effects = session.server_line(R"({"jsonrpc":"2.0","id":)" + id +
                                           R"(,"result":{"protocolVersion":"2025-11-25"}})");
  EXPECT_TRUE(effects.became_ready);
  EXPECT_THAT(effects.to_server, ElementsAre(HasSubstr("notifications/initialized")));
  EXPECT_TRUE(session.server_ready());
  // The question of the lost process is forgotten.
  EXPECT_THAT(session.post(result("5"))->to_server, IsEmpty());
}

TEST_F(SessionTest, AReplayThatEndsInAnotherVersionIsAFailure) {
  establish();
  session.server_lost("x");
  const auto replay = session.server_started();
  const auto id = std::string(parse_message(replay[0])->id);
  const auto effects = session.server_line(R"({"jsonrpc":"2.0","id":)" + id +
                                           R"(,"result":{"protocolVersion":"2025-06-18"}})");
  EXPECT_THAT(effects.handshake_failure, HasSubstr("2025-06-18"));
  EXPECT_FALSE(session.server_ready());
}

TEST_F(SessionTest, JunkIsRecognised) {
  establish();
  for (const char* line : {"hello", "{}", "", "[", R"({"jsonrpc":"2.0","id":99,"result":{}})"}) {
    EXPECT_TRUE(session.server_line(line).junk) << line;
  }
  EXPECT_FALSE(session.server_line(R"({"jsonrpc":"2.0","method":"notifications/message"})").junk);
}

TEST_F(SessionTest, BatchesOnlyInTheRevisionThatHasThem) {
  establish("2025-03-26");
  const auto accepted = session.post("[" + call("1") + "," + call("2") + "]");
  ASSERT_TRUE(accepted);
  EXPECT_EQ(accepted->to_server.size(), 2U);
  session.server_line(result("2"));
  EXPECT_FALSE(session.stream(*accepted->stream)->finished());
  session.server_line(result("1"));
  EXPECT_TRUE(session.stream(*accepted->stream)->finished());
  EXPECT_FALSE(session.post("[" + call("3") + "," + call("3") + "]"));
  EXPECT_EQ(session.in_flight(), 0U);

  Session newer("t", "server");
  newer.server_started();
  newer.post(initialize());
  newer.server_line(initialize_result());
  EXPECT_FALSE(newer.post("[" + call("1") + "]"));
}

TEST(EventStream, ResumesExactlyWhereItWas) {
  EventStream stream(3, {});
  for (const char* text : {"a", "b", "c"}) stream.push(text);
  EXPECT_EQ(*stream.after(1)->message, "b");
  EXPECT_FALSE(stream.after(3));
  EXPECT_TRUE(stream.can_resume_at(3));
  EXPECT_FALSE(stream.can_resume_at(4));
  EXPECT_EQ(to_string(EventId{3, 2}), "3-2");
  EXPECT_EQ(parse_event_id("3-2")->sequence, 2U);
  EXPECT_FALSE(parse_event_id("3"));
  EXPECT_FALSE(parse_event_id("-1-2"));
}

TEST(EventStream, IsBoundedButNeverLosesWhatAReaderIsAboutToSend) {
  EventStream::Limits limits;
  limits.max_events = 2;
  EventStream stream(1, limits);
  for (const char* text : {"a", "b", "c"}) stream.push(text);
  EXPECT_EQ(*stream.after(0)->message, "b");
  EXPECT_FALSE(stream.can_resume_at(0));
  stream.attach();
  stream.delivered(3);
  for (const char* text : {"d", "e", "f"}) stream.push(text);
  EXPECT_EQ(*stream.after(3)->message, "d");
  EXPECT_EQ(stream.pending_bytes(), 3U);
  stream.delivered(5);
  EXPECT_EQ(stream.pending_bytes(), 1U);
}

TEST(EventStream, ALaterReaderReplacesTheEarlier) {
  EventStream stream(1, {});
  const auto first = stream.attach();
  const auto second = stream.attach();
  EXPECT_NE(first, second);
  stream.detach(first);
  EXPECT_TRUE(stream.attached());
  stream.detach(second);
  EXPECT_FALSE(stream.attached());
}

}  // namespace
}  // namespace agent_vm::mcp

#include "mcp/message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mcp/json_scanner.h"

namespace agent_vm::mcp {
namespace {

using testing::HasSubstr;

bool is_json(std::string_view text) {
  JsonScanner scanner(text);
  if (!scanner.value()) return false;
  scanner.skip_space();
  return scanner.at_end();
}

TEST(JsonScanner, AcceptsJson) {
  for (const char* text :
       {"{}", "[]", " [1, -0, 1e400, 0.5E-3, true, false, null] ", R"("a\u00e9")",
        R"({"a":{"b":[{}]}})", "\"\xE2\x80\xA8\"", "\"\xF0\x9F\x98\x80\"", "9223372036854775808"}) {
    EXPECT_TRUE(is_json(text)) << text;
  }
}

TEST(JsonScanner, RefusesWhatIsNot) {
  for (const char* text : {"",
                           "{",
                           "[1,]",
                           "{\"a\":1,}",
                           "{a:1}",
                           "01",
                           "1.",
                           ".5",
                           "+1",
                           "1e",
                           "NaN",
                           "tru",
                           "'a'",
                           "\"\n\"",
                           R"("\x")",
                           R"("\u12g4")",
                           "\"abc",
                           "\"\xC0\x80\"",
                           "\"\xED\xA0\x80\"",
                           "\"\xF5\x80\x80\x80\"",
                           "\"\xE2\x80\"",
                           "[] []",
                           "\xEF\xBB\xBF{}",
                           "{\"a\" 1}",
                           "[1 2]"}) {
    EXPECT_FALSE(is_json(text)) << text;
  }
}

TEST(JsonScanner, DepthIsBounded) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(is_json(nested(JsonScanner::kMaxDepth)));
  EXPECT_FALSE(is_json(nested(JsonScanner::kMaxDepth + 2)));
  EXPECT_FALSE(is_json(nested(1'000'000)));
}

TEST(JsonScanner, DecodesStrings) {
  EXPECT_EQ(JsonScanner::decode_string(R"("a\n\u0062\ud83d\ude00\/")"), "a\nb\xF0\x9F\x98\x80/");
  EXPECT_EQ(JsonScanner::decode_string(R"("\ud83d")"), "\xEF\xBF\xBD");
}

TEST(Message, Request) {
  const std::string text =
      R"({ "jsonrpc":"2.0", "params":{"name":"x","_meta":{"progressToken":"t"}}, "id": 7, "method":"tools/call"})";
  const auto envelope = parse_message(text);
  ASSERT_TRUE(envelope);
  EXPECT_EQ(envelope->kind, MessageKind::kRequest);
  EXPECT_EQ(envelope->method, "tools/call");
  EXPECT_EQ(envelope->id, "7");
  EXPECT_EQ(envelope->progress_token, "\"t\"");
}

TEST(Message, EscapedNamesAreTheSameNames) {
  const auto envelope = parse_message(R"({"jsonrpc":"2.0","\u006dethod":"ping","\u0069d":1})");
  ASSERT_TRUE(envelope);
  EXPECT_EQ(envelope->method, "ping");
  EXPECT_EQ(envelope->id, "1");
}

TEST(Message, RefusesWhatTwoParsersCouldReadTwoWays) {
  for (
      const char* text :
      {R"({"jsonrpc":"2.0","id":1,"id":2,"method":"ping"})",
       R"({"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"})",
       R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"requestId":2}})"}) {
    const auto envelope = parse_message(text);
    ASSERT_FALSE(envelope) << text;
    EXPECT_EQ(envelope.error().code, kInvalidRequest);
    EXPECT_THAT(envelope.error().message, HasSubstr("twice"));
  }
}

TEST(Message, ErrorsHaveTheRightCode) {
  const auto code = [](std::string_view text) {
    const auto envelope = parse_message(text);
    return envelope ? 0 : envelope.error().code;
  };
  EXPECT_EQ(code(R"({"jsonrpc":"2.0","id":1,"method":"ping"})"), 0);
  EXPECT_EQ(code(R"({"jsonrpc":"2.0","id":1,"method":"ping")"), kParseError);
  EXPECT_EQ(code(R"({"jsonrpc":"2.0","id":1,"method":"ping"} x)"), kParseError);
  EXPECT_EQ(code("17"), kInvalidRequest);
  EXPECT_EQ(code(R"({"id":1,"method":"ping"})"), kInvalidRequest);
  EXPECT_EQ(code(R"({"jsonrpc":"1.0","id":1,"method":"ping"})"), kInvalidRequest);
  EXPECT_EQ(code(R"({"jsonrpc":"2.0","id":null,"method":"ping"})"), kInvalidRequest);
  EXPECT_EQ(code(R"({"jsonrpc":"2.0","id":1.5,"method":"ping"})"), kInvalidRequest);
  EXPECT_EQ(code(R"({"jsonrpc":"2.0","id":1,"method":5})"), kInvalidRequest);
  EXPECT_EQ(code(R"({"jsonrpc":"2.0","id":1,"result":1,"error":{}})"), kInvalidRequest);
  EXPECT_EQ(code(R"({"jsonrpc":"2.0","id":1})"), kInvalidRequest);
}

TEST(Message, Batches) {
  EXPECT_EQ(split_body("[{},{}]", true)->size(), 2U);
  EXPECT_EQ(split_body("[{},{}]", false).error().code, kInvalidRequest);
  EXPECT_EQ(split_body("[]", true).error().code, kInvalidRequest);
  EXPECT_EQ(split_body("[{}", true).error().code, kParseError);
}

TEST(Message, Ids) {
  EXPECT_EQ(id_key("\"a\""), id_key(R"("\u0061")"));
  EXPECT_NE(id_key("1"), id_key("\"1\""));
  EXPECT_TRUE(id_is_portable("-123456789012345"));
  EXPECT_FALSE(id_is_portable("9007199254740993"));
  const std::string text = R"({"id":12,"jsonrpc":"2.0","method":"x"})";
  const auto envelope = parse_message(text);
  EXPECT_EQ(with_id(text, envelope->id, "\"alias\""),
            R"({"id":"alias","jsonrpc":"2.0","method":"x"})");
}

TEST(Message, ErrorTextIsEscaped) {
  EXPECT_EQ(error_message("\"x\"", -1, "a\"b\n"),
            R"({"jsonrpc":"2.0","id":"x","error":{"code":-1,"message":"a\"b\n"}})");
}

}  // namespace
}  // namespace agent_vm::mcp

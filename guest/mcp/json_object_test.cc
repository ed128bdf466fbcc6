#include "mcp/json_object.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"
#include "mcp/sha256.h"

namespace agent_vm::mcp {
namespace {

TEST(JsonObject, OnlyTheNamedMembersChange) {
  const std::string text = R"( { "a" : 9223372036854775808, "b\u0062":"\/", "c":[1e400,{}] } )";
  ObjectEdit edit;
  edit.set["bb"] = "2";
  edit.set["new"] = "{}";
  edit.remove = {"c"};
  EXPECT_EQ(edit_object(text, edit), R"({"a" : 9223372036854775808,"bb":2,"new":{}})");
  EXPECT_EQ(edit_object(text, {}), R"({"a" : 9223372036854775808,"b\u0062":"\/","c":[1e400,{}]})");
  EXPECT_EQ(edit_object("nonsense", edit), R"({"bb":2,"new":{}})");
}

TEST(JsonObject, MembersAreFound) {
  const std::string text = R"({"a":{"b":["x","\u0079",1]},"a":2})";
  EXPECT_EQ(member_of(text, "a"), R"({"b":["x","\u0079",1]})");
  EXPECT_EQ(member_of(text, "z"), "");
  EXPECT_EQ(member_of("[1]", "a"), "");
  EXPECT_THAT(strings_of(member_of(member_of(text, "a"), "b")), testing::ElementsAre("x", "y"));
  EXPECT_EQ(string_member_of(R"({"s":"\u0041"})", "s"), "A");
  EXPECT_FALSE(string_member_of(R"({"s":1})", "s"));
}

// FIPS 180-4's examples, RFC 4231's case 2 and one whose key is longer than a block (case 6).
TEST(Sha256, AgreesWithTheStandards) {
  EXPECT_EQ(to_hex(sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(to_hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(to_hex(hmac_sha256(std::string(131, '\xaa'),
                               "Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

}  // namespace
}  // namespace agent_vm::mcp

#include "base/text.h"

#include <gmock/gmock.h>

namespace agent_vm {
namespace {

TEST(EscapeControl, S25_LeavesNothingForATerminalToActOn) {
  EXPECT_EQ(escape_control("plain \xC3\xA9 \xF0\x9F\x9F\xA2\n\t"),
            "plain \xC3\xA9 \xF0\x9F\x9F\xA2\n\t");
  EXPECT_EQ(escape_control("\x1b[2J\r\x07"), "\\x1b[2J\\x0d\\x07");
  EXPECT_EQ(escape_control("\xC2\x9B"
                           "31m"),
            "\\xc2\\x9b31m");  // C1 CSI
  EXPECT_EQ(escape_control("\xE2\x80\xAE"
                           "x"),
            "\\xe2\\x80\\xaex");  // right-to-left override
  EXPECT_EQ(escape_control("\xFF\xC0\x80\xED\xA0\x80"), "\\xff\\xc0\\x80\\xed\\xa0\\x80");
  EXPECT_EQ(escape_line("a\nb\tc"), "a\\x0ab\\x09c");
}

TEST(ParseSize, ReadsUnitsOf1024AndRefusesTheRest) {
  EXPECT_EQ(parse_size("512M"), 512ULL << 20);
  EXPECT_EQ(parse_size("1.5GiB"), 3ULL << 29);
  EXPECT_EQ(parse_size("4096"), 4096U);
  EXPECT_EQ(parse_size("2g"), 2ULL << 30);
  for (const auto* bad :
       {"", "M", "-1G", "1X", "1GG", "nan", "inf", "1e3000", "0x10", "9999999P"}) {
    EXPECT_FALSE(parse_size(bad)) << bad;
  }
}

TEST(ParseDuration, ReadsUnits) {
  EXPECT_EQ(parse_duration_ms("250ms"), 250U);
  EXPECT_EQ(parse_duration_ms("1.5"), 1500U);
  EXPECT_EQ(parse_duration_ms("2h"), 7'200'000U);
  EXPECT_FALSE(parse_duration_ms("soon"));
}

TEST(Nearest, FindsTyposAndNothingElse) {
  const std::vector<std::string> known{"memory", "branch", "packages"};
  EXPECT_EQ(nearest("memroy", known), "memory");
  EXPECT_EQ(nearest("package", known), "packages");
  EXPECT_EQ(nearest("zzzzzz", known), std::nullopt);
}

TEST(ShellQuote, RoundTripsAwkwardArguments) {
  EXPECT_EQ(shell_quote("a b"), "'a b'");
  EXPECT_EQ(shell_quote("it's"), "'it'\\''s'");
  EXPECT_EQ(shell_quote(""), "''");
  EXPECT_EQ(shell_quote("/usr/bin/x-y"), "/usr/bin/x-y");
}

TEST(Base64, RoundTripsAndRefusesJunk) {
  for (const std::string text : {"", "a", "ab", "abc", "abcd"}) {
    EXPECT_EQ(base64_decode(base64_encode(text)), text);
  }
  EXPECT_EQ(base64_encode("hello"), "aGVsbG8=");
  EXPECT_FALSE(base64_decode("a*b="));
  EXPECT_FALSE(base64_decode("aGVsbG8=aaaa"));
}

TEST(Split, KeepsEmptyFields) {
  EXPECT_THAT(split("a::b", ':'), testing::ElementsAre("a", "", "b"));
  EXPECT_THAT(split_lines("a\r\nb\n\nc"), testing::ElementsAre("a", "b", "", "c"));
}

Result<int> inner() {
  return fail(ErrorKind::kNotFound, "no {} here", "VM");
}
Result<int> outer() {
  return TRY_CONTEXT(inner(), "starting {}", "x") + 1;
}

TEST(Result, GathersContextAndKeepsTheFirstCause) {
  const auto result = outer();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message(), "starting x: no VM here");
  EXPECT_EQ(result.error().kind(), ErrorKind::kNotFound);
  EXPECT_EQ(result.error().trail().size(), 2U);
  EXPECT_EQ(error_kind_from_string(to_string(ErrorKind::kMissing)), ErrorKind::kMissing);
}

}  // namespace
}  // namespace agent_vm

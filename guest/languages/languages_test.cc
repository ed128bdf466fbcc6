#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <csignal>
#include <vector>

#include "languages/framing.h"
#include "languages/place.h"
#include "languages/server.h"
#include "workspace/test_folder.h"

namespace agent_vm::languages {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Framing, FramesAreWholeHoweverTheBytesCome) {
  // A length counts bytes, not characters.
  const std::string stream = to_frame("{\"a\":\"é\"}") + to_frame("{}") +
                             "content-type: x\r\ncontent-LENGTH:  2\r\n\r\n[]";
  for (const std::size_t step : {std::size_t{1}, std::size_t{7}, stream.size()}) {
    FrameReader reader;
    std::vector<std::string> frames;
    for (std::size_t at = 0; at < stream.size(); at += step) {
      ASSERT_TRUE(reader.feed(stream.substr(at, step),
                              [&](std::string_view frame) { frames.emplace_back(frame); }));
    }
    EXPECT_THAT(frames, ElementsAre("{\"a\":\"é\"}", "{}", "[]"));
  }
}

TEST(Framing, WhatIsNotTheProtocolIsRefused) {
  const auto feed = [](const std::string& bytes) {
    FrameReader reader;
    return reader.feed(bytes, [](std::string_view) { FAIL(); });
  };
  EXPECT_THAT(feed("Content-Type: x\r\n\r\n").error().message(), HasSubstr("Content-Length"));
  EXPECT_FALSE(feed("Content-Length: -1\r\n\r\n"));
  EXPECT_FALSE(feed("Content-Length: 99999999999\r\n\r\n"));
  EXPECT_THAT(feed("usage: " + std::string(5000, 'x')).error().message(), HasSubstr("usage: xx"));
}

TEST(FindSymbol, IsAWholeWord) {
  const std::string text = "int areas;\nint x = area(areas); // area\n";
  EXPECT_EQ(find_symbol(text, "area", 0), (Place{1, 8}));
  EXPECT_EQ(find_symbol(text, "area", 2), (Place{1, 8}));
  EXPECT_EQ(find_symbol(text, "areas", 2), (Place{1, 13}));
  EXPECT_THAT(find_symbol(text, "area", 1).error().message(), HasSubstr("line 1; it does in 2"));
  EXPECT_THAT(find_symbol(text, "are", 0).error().message(), HasSubstr("not stand in this file"));
  EXPECT_FALSE(find_symbol(text, " ", 0));
}

TEST(FindSymbol, OfAQualifiedNameItIsTheLastPart) {
  EXPECT_EQ(find_symbol("a.area = ns::f();", "a.area", 1), (Place{0, 2}));
  EXPECT_EQ(find_symbol("a.area = ns::f();", "ns::f", 1), (Place{0, 13}));
  EXPECT_EQ(find_symbol("a == b", "==", 1), (Place{0, 2}));
}

TEST(FindSymbol, CountsInUnitsOfUtf16) {
  EXPECT_EQ(find_symbol("/* é€ */ x", "x", 1), (Place{0, 9}));
  EXPECT_EQ(find_symbol("/* 😀 */ x", "x", 1), (Place{0, 9}));  // one character, two units
}

TEST(Uri, IsThatOfThePath) {
  const std::string path = "/work space/é#?%41.ts";
  EXPECT_EQ(to_uri(path), "file:///work%20space/%C3%A9%23%3F%2541.ts");
  EXPECT_EQ(path_of_uri(to_uri(path)), path);
  EXPECT_EQ(path_of_uri("file:///a%zz%2"), "/a%zz%2");
  EXPECT_EQ(path_of_uri("untitled:x"), "");
}

TEST(ParseLanguage, SaysWhatItWants) {
  const auto go = parse_language("go:go,mod=gopls serve");
  ASSERT_TRUE(go);
  EXPECT_THAT(go->command, ElementsAre("gopls", "serve"));
  EXPECT_EQ(go->extensions.at("mod"), "go");
  for (const char* bad : {"", "go", "go=gopls", "go:=gopls", ":go=gopls", "go:go=", "go:go= "}) {
    EXPECT_FALSE(parse_language(bad)) << bad;
  }
}

// A language server in a few lines of shell is a real process that can misbehave.
class ServerTest : public testing::Test {
 protected:
  // As in main(): a language server that ended may be written to.
  static void SetUpTestSuite() { std::signal(SIGPIPE, SIG_IGN); }
  void start(std::vector<LanguageSpec> languages) {
    server_ = std::make_shared<Server>(
        io_.get_executor(), folder_.root(), std::move(languages),
        [this](const std::string& line) { answers_.push_back(Json::parse(line)); });
  }
  static LanguageSpec shell(const std::string& script) {
    return {.command = {"/bin/sh", "-c", script}, .extensions = {{"x", "x"}}};
  }
  // The answer to the next request.
  Json ask(const std::string& method, const Json& params) {
    answers_.clear();
    server_->receive(
        Json{{"jsonrpc", "2.0"}, {"id", ++id_}, {"method", method}, {"params", params}}.dump());
    io_.restart();
    while (answers_.empty() && io_.run_one_for(std::chrono::seconds(20)) > 0) {
    }
    if (answers_.empty()) return "no answer";
    EXPECT_EQ(answers_.front().value("id", 0), id_);
    return answers_.front();
  }
  std::string call(const std::string& tool, const Json& arguments) {
    const Json answer = ask("tools/call", {{"name", tool}, {"arguments", arguments}});
    if (answer.contains("error")) return answer.at("error").at("message");
    return answer.at("result").at("content").at(0).at("text");
  }
  void TearDown() override {
    if (!server_) return;
    server_->stop();
    io_.restart();
    io_.run_for(std::chrono::seconds(10));
  }

  workspace::TestFolder folder_;
  boost::asio::io_context io_;
  std::shared_ptr<Server> server_;
  std::vector<Json> answers_;
  int id_ = 0;
};

TEST_F(ServerTest, IntroducesItself) {
  start(known_languages());
  const Json hello = ask("initialize", {{"protocolVersion", "2025-06-18"}});
  EXPECT_EQ(hello.at("result").at("protocolVersion"), "2025-06-18");
  const Json tools = ask("tools/list", Json::object()).at("result").at("tools");
  ASSERT_EQ(tools.size(), 4U);
  for (const auto& tool : tools) EXPECT_EQ(tool.at("annotations").at("readOnlyHint"), true);
  EXPECT_TRUE(ask("tools/run", Json::object()).contains("error"));
}

TEST_F(ServerTest, BadArgumentsAreNamed) {
  start(known_languages());
  folder_.put("a.py", "x = 1\n");
  EXPECT_THAT(call("definitoin", Json::object()), HasSubstr("did you mean definition?"));
  EXPECT_THAT(call("definition", {{"path", "a.py"}}), HasSubstr("needs the argument symbol"));
  EXPECT_THAT(call("definition", {{"path", "a.py"}, {"symbol", "x"}, {"line", 0}}),
              HasSubstr("must be from 1"));
  EXPECT_THAT(call("symbols", {{"path", "../a.py"}}), HasSubstr("leads out of the workspace"));
  EXPECT_THAT(call("symbols", {{"path", "none.py"}}), HasSubstr("No such file"));
  EXPECT_THAT(call("symbols", {{"path", "a.bas"}}), HasSubstr("no language server is known"));
}

TEST_F(ServerTest, ALanguageServerThatFailsIsSaidAndStartedAgain) {
  folder_.put("a.x", "word\n");
  start({shell("echo started >> starts; echo no licence >&2; exit 3")});
  const Json arguments = {{"path", "a.x"}, {"symbol", "word"}};
  EXPECT_THAT(call("definition", arguments), HasSubstr("exited with status 3: no licence"));
  EXPECT_THAT(call("definition", arguments), HasSubstr("exited with status 3"));
  EXPECT_EQ(folder_.get("starts"), "started\nstarted\n");
}

TEST_F(ServerTest, AMissingLanguageServerIsNamed) {
  folder_.put("a.x", "word\n");
  start({{.command = {"no-such-server"}, .extensions = {{"x", "x"}}, .hint = "install it"}});
  EXPECT_THAT(call("symbols", {{"path", "a.x"}}),
              testing::AllOf(HasSubstr("no-such-server"), HasSubstr("install it")));
}

TEST_F(ServerTest, JunkIsNoAnswer) {
  folder_.put("a.x", "word\n");
  start({shell("while :; do echo not the protocol; done")});
  EXPECT_THAT(call("symbols", {{"path", "a.x"}}), HasSubstr("not its protocol: not the protocol"));
}

}  // namespace
}  // namespace agent_vm::languages

#include "workspace/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <thread>

#include "process/capture.h"
#include "workspace/environment.h"
#include "workspace/test_folder.h"

namespace agent_vm::workspace {
namespace {

using testing::HasSubstr;
using testing::Not;

class ServerTest : public testing::Test {
 protected:
  // Sends one request and runs the loop until its answer is there.
  Json request(const std::string& method, const Json& params) {
    const int id = next_id_++;
    conversation_->receive(
        Json{{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", params}}.dump());
    while (answers_.count(id) == 0) {
      if (io_.run_one_for(std::chrono::seconds(20)) == 0) throw std::runtime_error("no answer");
    }
    return answers_.at(id);
  }
  std::string call(const std::string& tool, const Json& arguments, bool expect_error = false) {
    const Json answer = request("tools/call", {{"name", tool}, {"arguments", arguments}});
    if (!answer.contains("result")) return answer.dump();
    EXPECT_EQ(answer.at("result").value("isError", false), expect_error) << answer.dump();
    return answer.at("result").at("content").at(0).at("text");
  }

  TestFolder folder_;
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_ =
      boost::asio::make_work_guard(io_);  // answers of the workers come from outside the loop
  std::map<int, Json> answers_;
  std::shared_ptr<Service> service_ = std::make_shared<Service>(io_.get_executor(), folder_.root());
  std::shared_ptr<Conversation> conversation_ =
      std::make_shared<Conversation>(service_, [this](const std::string& line) {
        EXPECT_EQ(line.find('\n'), std::string::npos);
        const Json answer = Json::parse(line);
        answers_[answer.at("id")] = answer;
      });
  int next_id_ = 1;
};

TEST_F(ServerTest, OffersTheNearestVersion) {
  EXPECT_EQ(request("initialize", {{"protocolVersion", "2025-06-18"}})["result"]["protocolVersion"],
            "2025-06-18");
  EXPECT_EQ(request("initialize", {{"protocolVersion", "1999-01-01"}})["result"]["protocolVersion"],
            "2025-11-25");
}

TEST_F(ServerTest, ListsItsToolsAlwaysInTheSameOrder) {
  const Json tools = request("tools/list", Json::object())["result"]["tools"];
  std::vector<std::string> names;
  for (const Json& tool : tools) {
    names.push_back(tool.at("name"));
    EXPECT_TRUE(tool.at("annotations").contains("readOnlyHint"));
    EXPECT_EQ(tool.at("inputSchema").at("additionalProperties"), false);
  }
  EXPECT_THAT(
      names, testing::ElementsAre("exec", "exec_poll", "exec_input", "exec_signal", "read", "write",
                                  "edit", "apply_patch", "glob", "grep", "git_diff", "git_commit"));
  EXPECT_EQ(request("tools/list", Json::object())["result"]["tools"].dump(), tools.dump());
}

TEST_F(ServerTest, ArgumentsAreCheckedAgainstTheSchema) {
  EXPECT_THAT(call("read", {{"paht", "x"}}, true), HasSubstr("did you mean path?"));
  EXPECT_THAT(call("read", Json::object(), true), HasSubstr("needs the argument path"));
  EXPECT_THAT(call("read", {{"path", 5}}, true), HasSubstr("must be of type string"));
  EXPECT_THAT(call("read", {{"path", "x"}, {"offset", 0}}, true), HasSubstr("from 1 to"));
  EXPECT_THAT(call("read", {{"path", "x"}, {"offset", 1.5}}, true), HasSubstr("integer"));
  EXPECT_THAT(call("grep", {{"pattern", "x"}, {"mode", "y"}}, true), HasSubstr("one of"));
  EXPECT_THAT(call("exec", {{"argv", {1, 2}}}, true), HasSubstr("only strings"));
  EXPECT_THAT(call("exec", Json::object(), true), HasSubstr("either command or argv"));
  EXPECT_THAT(call("raed", Json::object()), HasSubstr("did you mean read?"));
  EXPECT_EQ(request("tools/call", Json::array())["error"]["code"], -32602);
  EXPECT_EQ(request("resources/list", Json::object())["error"]["code"], -32601);
}

TEST_F(ServerTest, ANumberThatCannotBeHeldIsAnsweredWithAnError) {
  conversation_->receive(R"({"jsonrpc":"2.0","id":77,"method":"ping","params":{"x":1e400}})");
  ASSERT_EQ(answers_.count(77), 1U);
  EXPECT_EQ(answers_.at(77)["error"]["code"], -32602);
}

TEST_F(ServerTest, ExecRunsInTheWorkspace) {
  EXPECT_THAT(call("exec", {{"command", "pwd; echo err >&2; exit 3"}}),
              testing::AllOf(HasSubstr(folder_.path().string() + "\nerr\n"),
                             HasSubstr("exited with status 3")));
  folder_.put("sub/f", "x");
  EXPECT_THAT(call("exec", {{"argv", {"cat", "f"}}, {"cwd", "sub"}}), HasSubstr("x\n[exited"));
  EXPECT_THAT(call("exec", {{"command", "echo $A"}, {"env", {{"A", "b c"}}}}), HasSubstr("b c\n"));
  EXPECT_THAT(call("exec", {{"argv", {"no-such"}}}, true), HasSubstr("command not found"));
  EXPECT_THAT(call("exec", {{"command", "pwd"}, {"cwd", "../"}}, true), HasSubstr("leads out"));
}

TEST_F(ServerTest, ExecGoesToTheBackgroundAndCanBeFed) {
  const std::string started =
      call("exec", {{"command", "read a; echo got $a; exec cat"}, {"wait", 0}});
  EXPECT_THAT(started, HasSubstr("as job 1"));
  EXPECT_THAT(call("exec_poll", {{"job", 2}}, true), HasSubstr("there is no job 2; there is 1"));
  std::string text = call("exec_input", {{"job", 1}, {"text", "hello\n"}, {"wait", 1}});
  EXPECT_THAT(text, HasSubstr("got hello"));
  text = call("exec_input", {{"job", 1}, {"text", "more"}, {"close", true}, {"wait", 20}});
  EXPECT_THAT(text, testing::AllOf(HasSubstr("more"), HasSubstr("exited with status 0")));
  EXPECT_THAT(call("exec_input", {{"job", 1}, {"text", "x"}}, true), HasSubstr("has ended"));
}

TEST_F(ServerTest, ExecTimeoutAndSignals) {
  EXPECT_THAT(call("exec", {{"command", "sleep 100"}, {"timeout", 1}}), HasSubstr("its timeout"));
  call("exec", {{"command", "sleep 100"}, {"wait", 0}});
  EXPECT_THAT(call("exec_signal", {{"job", 2}, {"signal", "NOPE"}}, true),
              HasSubstr("unknown signal"));
  EXPECT_THAT(call("exec_signal", {{"job", 2}, {"signal", "SIGINT"}}), HasSubstr("signal 2"));
}

TEST_F(ServerTest, ExecOutputIsCappedAndNeedNotBeText) {
  const std::string text =
      call("exec", {{"command", "yes | head -c 100000000; printf '\\377end'"}});
  EXPECT_LE(text.size(), kMaxOutputBytes + 300);
  EXPECT_THAT(text, HasSubstr("\xEF\xBF\xBD"
                              "end"));
}

TEST_F(ServerTest, ACancelledCallEndsItsCommand) {
  conversation_->receive(
      R"({"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"exec","arguments":{"command":"sleep 1000"}}})");
  EXPECT_EQ(service_->jobs().running(), 1U);
  conversation_->receive(
      R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}})");
  while (service_->jobs().running() != 0) {
    ASSERT_NE(io_.run_one_for(std::chrono::seconds(20)), 0U);
  }
  EXPECT_EQ(answers_.count(1), 0U);
}

TEST_F(ServerTest, ChildrenDoNotGetTheNotifySocket) {
  ::setenv("NOTIFY_SOCKET", "/run/canary", 1);
  ::setenv("AGENT_VM_ORDINARY", "passes", 1);
  const std::string text = call("exec", {{"command", "env"}});
  ::unsetenv("NOTIFY_SOCKET");
  EXPECT_THAT(text, Not(HasSubstr("canary")));
  EXPECT_THAT(text, HasSubstr("AGENT_VM_ORDINARY=passes"));
}

TEST_F(ServerTest, FilesAreWrittenEditedAndFound) {
  EXPECT_THAT(call("write", {{"path", "src/a.c"}, {"content", "int main;\n"}}),
              HasSubstr("10 bytes"));
  call("edit", {{"path", "src/a.c"}, {"old_text", "int"}, {"new_text", "long"}});
  EXPECT_THAT(call("read", {{"path", "src/a.c"}}), HasSubstr("long main;"));
  EXPECT_EQ(call("glob", {{"pattern", "**/*.c"}}), "src/a.c");
  EXPECT_EQ(call("glob", {{"pattern", "*.c"}, {"path", "src"}}), "src/a.c");
  EXPECT_EQ(call("glob", {{"pattern", "*.rs"}}), "[no file matches]");
  EXPECT_EQ(call("grep", {{"pattern", "l.ng"}}), "./src/a.c:1:long main;");
  EXPECT_THAT(call("grep", {{"pattern", "long"}, {"path", "src/a.c"}}), HasSubstr("1:long main;"));
  EXPECT_EQ(call("grep", {{"pattern", "l.ng"}, {"literal", true}}), "[no match]");
  EXPECT_EQ(call("grep", {{"pattern", "--files"}}), "[no match]");  // never an option
  EXPECT_THAT(call("grep", {{"pattern", "("}}, true), HasSubstr("regex"));
}

TEST_F(ServerTest, GitShowsAndCommits) {
  call("exec", {{"command",
                 "git init -q -b main . && git config user.name T && git config "
                 "user.email t@example.test"}});
  folder_.put("f", "1\n");
  EXPECT_THAT(call("git_diff", Json::object()), HasSubstr("?? f"));
  EXPECT_THAT(call("git_commit", {{"message", "First\n\nBody"}}),
              testing::AllOf(HasSubstr("First"), HasSubstr("f | 1 +")));
  EXPECT_THAT(call("git_commit", {{"message", "Nothing"}}, true), HasSubstr("nothing"));
  folder_.put("f", "2\n");
  folder_.put("g", "other\n");
  EXPECT_THAT(call("git_diff", Json::object()), HasSubstr("-1\n+2"));
  EXPECT_THAT(call("git_commit", {{"message", "Only f"}, {"paths", {"f"}}}), Not(HasSubstr("g |")));
  EXPECT_THAT(call("git_diff", Json::object()), HasSubstr("?? g"));
  EXPECT_THAT(call("git_diff", {{"range", "--output=owned"}}, true), HasSubstr("not a revision"));
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "owned"));
}

}  // namespace
}  // namespace agent_vm::workspace

// The command line itself.
#include <nlohmann/json.hpp>

#include "harness.h"

namespace agent_vm {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

using FrameTest = CliTest;

TEST_F(FrameTest, VersionAndHelp) {
  EXPECT_THAT(agent_vm({"--version"}).out, StartsWith("agent-vm "));
  const Outcome help = agent_vm({"--help"});
  EXPECT_EQ(help.code, 0);
  for (const auto* verb : {"create", "list", "update", "destroy", "trust", "completion"}) {
    EXPECT_THAT(help.out, HasSubstr(verb));
    const Outcome own = agent_vm({verb, "--help"});
    EXPECT_EQ(own.code, 0);
    EXPECT_THAT(own.out, HasSubstr("Examples:")) << verb;
  }
  EXPECT_THAT(help.out, Not(HasSubstr("__complete")));
  EXPECT_EQ(agent_vm({}).code, 2);
}

TEST_F(FrameTest, UnknownVerbsAndOptionsNameTheNearestKnownOne) {
  expect_refused(agent_vm({"craete"}), 2, "unknown verb 'craete'; did you mean 'create'?");
  expect_refused(agent_vm({"create", "--memroy", "2G"}), 2, "did you mean '--memory'?");
  expect_refused(agent_vm({"--tiemout", "3", "list"}), 2, "did you mean '--timeout'?");
  expect_refused(agent_vm({"list", "surplus"}), 2, "unexpected argument 'surplus'");
  expect_refused(agent_vm({"exec", "vm", "ls"}), 2, "the command stands behind --");
  expect_refused(agent_vm({"list", "--timeout", "soon"}), 2, "'soon' is not a duration");
  expect_refused(agent_vm({"list", "--timeout", "0"}), 2, "no time at all");
}

TEST_F(FrameTest, GlobalOptionsStandBeforeAndBehindTheVerb) {
  ASSERT_EQ(agent_vm({"create"}).code, 0);
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {"--state-dir", state(), "--timeout", "5", "--debug", "list"},
           {"list", "--state-dir", state(), "--timeout=5", "-v", "-d"},
           {"-v", "list", "--state-dir=" + state()}}) {
    const Outcome outcome = plain(arguments, "/");
    EXPECT_EQ(outcome.code, 0) << outcome.error;
    EXPECT_THAT(outcome.out, HasSubstr("repo-main"));
  }
}

TEST_F(FrameTest, TheLastOfTwoGlobalOptionsCounts) {
  ASSERT_EQ(agent_vm({"create"}).code, 0);
  const Outcome last = plain({"--state-dir", root() + "/other", "--timeout", "0", "list",
                              "--timeout", "5", "--state-dir", state()},
                             "/");
  EXPECT_EQ(last.code, 0) << last.error;
  EXPECT_THAT(last.out, HasSubstr("repo-main"));
  EXPECT_EQ(agent_vm({"--timeout", "5", "list", "--timeout", "0"}).code, 2) << "the control";
}

TEST_F(FrameTest, DebugShowsEachProgramAndOnlyDebugDoes) {
  EXPECT_THAT(agent_vm({"--debug", "create"}).error, HasSubstr("spawn: git "));
  EXPECT_EQ(agent_vm({"create", "--branch", "b"}).error, "");
  const Outcome verbose = agent_vm({"create", "--branch", "c", "--verbose"});
  EXPECT_THAT(verbose.error, HasSubstr("cloning"));
  EXPECT_THAT(verbose.error, Not(HasSubstr("spawn:")));
}

TEST_F(FrameTest, ErrorsAreJsonWhenJsonIsAskedFor) {
  const Outcome outcome = agent_vm({"create", "--memory", "1", "--json"});
  EXPECT_EQ(outcome.code, 2);
  const auto error = nlohmann::json::parse(outcome.out)["error"];
  EXPECT_EQ(error["kind"], "invalid_input");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("too small"));
  EXPECT_EQ(outcome.error, "");
}

TEST_F(FrameTest, ColoursOnATerminalOnly) {
  ASSERT_EQ(agent_vm({"create"}).code, 0);
  EXPECT_THAT(agent_vm({"list"}).out, Not(HasSubstr("\x1b[")));
  EXPECT_THAT(on_terminal({"list"}, "").out, HasSubstr("\x1b[1m"));
  EXPECT_THAT(on_terminal({"list"}, "", {"NO_COLOR=1"}).out, Not(HasSubstr("\x1b[")));
}

TEST_F(FrameTest, S25_NoByteOfAUsersOrARepositorysReachesTheTerminalRaw) {
  const Outcome outcome = agent_vm({"create", "--branch", "a\x1b[2Jb"});
  expect_refused(outcome, 2, "a\\x1b[2Jb");
  EXPECT_THAT(outcome.error, Not(HasSubstr("\x1b")));
}

TEST_F(FrameTest, CompletionKnowsVerbsOptionsAndVms) {
  ASSERT_EQ(agent_vm({"create", "--branch", "topic"}).code, 0);
  EXPECT_EQ(agent_vm({"__complete", "--", "des"}).out, "destroy\n");
  EXPECT_EQ(agent_vm({"__complete", "--", "destroy", ""}).out, "repo-topic\ntopic\n");
  EXPECT_EQ(agent_vm({"__complete", "--", "create", "--mem"}).out, "--memory\n");
  // bash itself takes the script and gives the same answer.
  const Outcome script = agent_vm({"completion", "bash"});
  write(root() + "/completion", script.out);
  EXPECT_EQ(shell(R"(PATH="$PWD/bin:$PATH"; mkdir bin; ln -s )" AGENT_VM_BINARY R"( bin/agent-vm
    bash -c '. ./completion; COMP_WORDS=(agent-vm undo); COMP_CWORD=1; _agent_vm
             echo "${COMPREPLY[@]}"')"),
            "undo-destroy");
  EXPECT_EQ(agent_vm({"completion", "tcsh"}).code, 2);
}

}  // namespace
}  // namespace agent_vm

#include <gmock/gmock.h>

#include "cli/escaping_pipe.h"
#include "cli/exit_code.h"
#include "cli/mcp_npm.h"
#include "cli/net.h"
#include "cli/remote.h"
#include "cli/status_report.h"
#include "os/run.h"

namespace agent_vm {
namespace {

TEST(EscapingPipe, S25_HoldsBackOnlyTheBeginningOfACharacter) {
  EXPECT_EQ(incomplete_tail(""), 0U);
  EXPECT_EQ(incomplete_tail("abc"), 0U);
  EXPECT_EQ(incomplete_tail("\xC3"), 1U);
  EXPECT_EQ(incomplete_tail("x\xE2\x82"), 2U);
  EXPECT_EQ(incomplete_tail("\xF0\x9F\x9F"), 3U);
  EXPECT_EQ(incomplete_tail("\xF0\x9F\x9F\xA2"), 0U);
  EXPECT_EQ(incomplete_tail("\x80\x80\x80\x80"), 0U);  // no character at all: escaped at once
}

TEST(EscapingPipe, S25_DropsTheCarriageReturnOfALinesEndOnly) {
  EXPECT_EQ(harmless("a\r\nb\n"), "a\nb\n");
  EXPECT_EQ(harmless("good\rbad\n"), "good\\x0dbad\n");
  EXPECT_EQ(harmless("\x1b[2J\r"), "\\x1b[2J\\x0d");
}

TEST(RemoteCommand, MeansExactlyItsArgumentsAndKeepsTheExitStatus) {
  const auto status_of = [](const std::vector<std::string>& argv) {
    std::string line = remote_command_line(argv, "mark");
    const std::string folder = "/workspace";
    line.replace(line.find(folder), folder.size(), "/");
    return run({.argv = {"sh", "-c", line}}).value();
  };
  EXPECT_EQ(status_of({"printf", "<%s>", "a b", "$(id)", "'", ""}).out, "<a b><$(id)><'><>");
  EXPECT_EQ(status_of({"sh", "-c", "exit 41"}).exit.code, 41);
  EXPECT_EQ(status_of({"sh", "-c", "kill -TERM $$"}).exit.code, 128 + 15);
}

TEST(StatusReport, F8_SaysWhatIsAmissWithTheWayOut) {
  using nlohmann::json;
  EXPECT_EQ(describe_network({{"network", "off"}, {"egress", {{"mode", "off"}}}}), "off");
  json supervisor = {{"network", "allowlist"},
                     {"egress",
                      {{"mode", "allowlist"},
                       {"uplink", {{"running", true}, {"restarts", 3}, {"last_end", "was killed"}}},
                       {"git", {{"running", true}}}}}};
  EXPECT_EQ(describe_network(supervisor), "allowlist");
  supervisor["egress"]["uplink"]["running"] = false;
  EXPECT_EQ(describe_network(supervisor),
            "allowlist; the uplink does not run and is started again (was killed)");
  supervisor["egress"]["git"]["running"] = false;
  EXPECT_THAT(describe_network(supervisor), testing::HasSubstr("no git over SSH"));
}

TEST(Npx, IsTakenApartAsNpxDoes) {
  const auto parsed = [](const std::vector<std::string>& argv) { return parse_npx(argv).value(); };
  const auto plain = parsed({"npx", "-y", "@scope/name@1.2.3", "-y", "a b"});
  EXPECT_EQ(plain->spec, "@scope/name@1.2.3");
  EXPECT_EQ(plain->program, "");
  EXPECT_EQ(plain->arguments, (std::vector<std::string>{"-y", "a b"}));
  for (const auto& argv :
       {std::vector<std::string>{"npx", "--package=name", "--yes", "prog", "--x"},
        {"npx", "-p", "name", "--", "prog", "--x"}}) {
    const auto named = parsed(argv);
    EXPECT_EQ(named->spec, "name");
    EXPECT_EQ(named->program, "prog");
    EXPECT_EQ(named->arguments, std::vector<std::string>{"--x"});
  }
  // Others are run as they are.
  EXPECT_FALSE(parsed({"/usr/bin/npx", "-y", "name"}));
  EXPECT_FALSE(parsed({"node", "npx"}));
  for (const auto& argv : {std::vector<std::string>{"npx"},
                           {"npx", "-y"},
                           {"npx", "--package"},
                           {"npx", "--package", "name"},
                           {"npx", "-p", "a", "-p", "b", "prog"},
                           {"npx", "--registry=x", "name"},
                           {"npx", "https://evil.example/x.tgz"},
                           {"npx", "../name"}}) {
    const auto refused = parse_npx(argv);
    EXPECT_FALSE(refused) << testing::PrintToString(argv);
    EXPECT_EQ(refused.error().kind(), ErrorKind::kInvalidInput);
  }
}

TEST(NpmRecord, NamesTheProgramAndWhatHasScripts) {
  const std::string record = R"({"packages": {
      "node_modules/@s/name": {"version": "1.2.3-rc.1", "bin": {"name": "x.js", "other": "y.js"}},
      "node_modules/one": {"version": "1.0.0", "bin": {"only": "x.js", "../up": "z.js"}},
      "node_modules/none": {"version": "1.0.0"},
      "node_modules/odd": {"version": "1/../..", "bin": {"odd": "x"}},
      "node_modules/@s/name/node_modules/native": {"version": "2.0.0", "hasInstallScript": true}}})";
  const auto read = [&](const NpxCommand& command) { return read_npm_record(record, command); };
  const NpmPackage own = read({.spec = "@s/name@^1"}).value();
  EXPECT_EQ(own.version, "1.2.3-rc.1");
  EXPECT_EQ(own.program, "name");
  EXPECT_EQ(own.scripts, std::vector<std::string>{"native"});
  EXPECT_EQ(read({.spec = "@s/name", .program = "other"})->program, "other");
  EXPECT_EQ(read({.spec = "one"})->program, "only");
  EXPECT_THAT(read({.spec = "@s/name", .program = "third"}).error().message(),
              testing::HasSubstr("but: name, other"));
  for (const char* spec : {"none", "odd", "absent"}) EXPECT_FALSE(read({.spec = spec})) << spec;
  for (const char* text : {"", "[]", "{}", R"({"packages": [1]})",
                           R"({"packages": {"node_modules/one": {"version": 1, "bin": "x"}}})"}) {
    EXPECT_FALSE(read_npm_record(text, {.spec = "one"})) << text;
  }
}

TEST(NpmRecord, AServersCommandNamesItsPackage) {
  for (const auto& [package, version, folder] :
       {std::tuple("@s/name", "1.2.3+b.1", "@s+name@1.2.3+b.1"),
        std::tuple("name", "1.0.0", "name@1.0.0")}) {
    EXPECT_EQ(npm_folder(package, version), folder);
    VmConfig config;
    config.name = "vm";
    config.mcp_servers["s"] = {
        .argv = {fmt::format("{}/{}/node_modules/.bin/prog", kNpmServers, folder), "a b"},
        .environment = {{"A", "1"}}};
    EXPECT_EQ(npm_package_of(config.mcp_servers["s"]), fmt::format("{}@{}", package, version));
    EXPECT_EQ(npm_commands(config),
              std::vector<std::string>{fmt::format(
                  "agent-vm mcp add s vm --env A=1 -- npx -y --package {}@{} prog 'a b'", package,
                  version)});
  }
  EXPECT_EQ(npm_package_of({.argv = {"npx", "-y", "name"}}), "");
  EXPECT_EQ(npm_package_of({.argv = {std::string(kNpmServers) + "/../../x"}}), "");
}

TEST(NetLine, SaysWhatWasDecidedAndWhy) {
  const Output out;
  const auto shown = [&](std::string_view line) {
    const std::string text = net_line(out, line);
    return text.substr(std::min<std::size_t>(text.size(), 10));  // without the time of day
  };
  EXPECT_EQ(
      shown(
          R"({"time":"2026-01-31T12:00:01.5Z","event":"request","decision":"allow","status":200,)"
          R"("method":"GET","url":"https://a.example/","received":2048,"ms":12,"secrets":"TOKEN"})"),
      "200      GET https://a.example/  2 KiB, 12 ms  with TOKEN");
  EXPECT_EQ(
      shown(
          R"({"time":"2026-01-31T12:00:01.5Z","event":"request","decision":"refuse","status":403,)"
          R"("method":"GET","url":"https://b.example/","why":"no rule allows b.example"})"),
      "refused  GET https://b.example/  (no rule allows b.example)");
  EXPECT_EQ(
      shown(
          R"({"time":"2026-01-31T12:00:01.5Z","event":"request","decision":"allow","status":null,)"
          R"("method":"GET","url":"https://c.example/","error":"connection refused"})"),
      "failed   GET https://c.example/  (connection refused)");
  EXPECT_EQ(
      shown(R"({"time":"2026-01-31T12:00:01.5Z","event":"dropped","tcp":0,"udp":7,"other":1})"),
      "dropped  packets that lead nowhere: 7 udp, 1 other");
}

TEST(NetLine, S25_WhatTheGuestNamedCannotCommandATerminal) {
  const Output out;
  EXPECT_EQ(net_line(out, "no JSON \x1b[2J"), "no JSON \\x1b[2J");
  EXPECT_THAT(
      net_line(out, R"({"time":"2026-01-31T12:00:01Z","event":"request","decision":"refuse",)"
                    R"("method":"GET","url":"https://a/\u001b[2J","why":"no"})"),
      testing::AllOf(testing::HasSubstr("x1b[2J"), testing::Not(testing::HasSubstr("\x1b"))));
}

TEST(ExitCode, IsTheOneThatTheManualPromises) {
  EXPECT_EQ(exit_code(ErrorKind::kFailed), 1);
  EXPECT_EQ(exit_code(ErrorKind::kInvalidInput), 2);
  EXPECT_EQ(exit_code(ErrorKind::kNotRunning), 3);
  EXPECT_EQ(exit_code(ErrorKind::kNotFound), 5);
  EXPECT_EQ(exit_code(ErrorKind::kTimeout), 6);
  EXPECT_EQ(exit_code(ErrorKind::kMissing), 7);
  EXPECT_EQ(exit_code(ErrorKind::kInterrupted), 130);
}

}  // namespace
}  // namespace agent_vm

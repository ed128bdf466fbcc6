#include "gateway/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "gateway/server_state.h"
#include "gateway/session_store.h"

namespace agent_vm::gateway {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "gateway-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string file(const std::string& name, const std::string& content, mode_t mode) const {
    const fs::path path = path_ / name;
    std::ofstream(path) << content;
    ::chmod(path.c_str(), mode);
    return path.string();
  }
  std::string path() const { return path_.string(); }

 private:
  fs::path path_;
};

TEST(Config, DefaultsAndServers) {
  const auto config = parse_config(
      R"({"token_file":"/t","servers":{"a-b_1":{"command":["x","y"],"env":{"K":"v"},"cwd":"/c"}}})");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->address, "0.0.0.0");
  EXPECT_EQ(config->port, 8000);
  EXPECT_EQ(config->default_server, "workspace");
  EXPECT_EQ(config->servers.at("a-b_1").environment.at("K"), "v");
  EXPECT_TRUE(config->origins.allows("https://claude.ai"));
  EXPECT_TRUE(config->hosts.allows("localhost:1"));
  EXPECT_FALSE(config->hosts.allows("example.com"));
}

TEST(Config, ErrorsNameKeyValueAndRemedy) {
  const auto error = [](const std::string& members) {
    const auto config = parse_config(R"({"token_file":"/t",)" + members + "}");
    return config ? "" : config.error().message();
  };
  EXPECT_EQ(error(R"("port":1)"), "");
  EXPECT_THAT(error(R"("prot":1)"), HasSubstr("did you mean \"port\"?"));
  EXPECT_THAT(error(R"("port":-1)"), HasSubstr("not -1"));
  EXPECT_THAT(error(R"("port":"x")"), HasSubstr("not \"x\""));
  EXPECT_THAT(error(R"("workspace":{"rot":"/"})"), HasSubstr("did you mean \"root\"?"));
  EXPECT_THAT(error(R"("workspace":{"root":"x"})"), HasSubstr("absolute path, not \"x\""));
  EXPECT_THAT(error(R"("limits":{"max_body":1})"), HasSubstr("max_body"));
  EXPECT_THAT(error(R"("servers":{"a":{"command":"ls"}})"), HasSubstr("list of strings"));
  EXPECT_THAT(error(R"("servers":{"a":{"command":["ls"],"cwd":"b"}})"), HasSubstr("absolute"));
  EXPECT_THAT(error(R"("servers":{"../a":{"command":["ls"]}})"), HasSubstr("cannot name a server"));
  EXPECT_THAT(error(R"("default_server":"nope")"), HasSubstr("names no server"));
  EXPECT_THAT(parse_config("[]").error().message(), HasSubstr("must be an object"));
  EXPECT_THAT(parse_config("{").error().message(), HasSubstr("not valid JSON"));
}

TEST(Token, FileMustBeClosedToOthersAndLongEnough) {
  const Folder folder;
  const std::string good = "0123456789abcdef\n";
  EXPECT_EQ(*load_token(folder.file("a", good, 0600)), "0123456789abcdef");
  EXPECT_TRUE(load_token(folder.file("b", good, 0640)));
  EXPECT_THAT(load_token(folder.file("c", good, 0644)).error().message(), HasSubstr("0644"));
  EXPECT_FALSE(load_token(folder.file("d", good, 0660)));
  const auto brief = load_token(folder.file("e", "secret-value\n", 0600));
  ASSERT_FALSE(brief);
  EXPECT_THAT(brief.error().message(), testing::Not(HasSubstr("secret-value")));
  EXPECT_FALSE(load_token(folder.file("f", "with a space in it all\n", 0600)));
  EXPECT_FALSE(load_token(folder.path()));
  EXPECT_FALSE(load_token(folder.path() + "/none"));
}

TEST(LineRing, IsBoundedBothWays) {
  LineRing ring;
  ring.append("par");
  ring.append("tial\nnext\n");
  EXPECT_THAT(ring.lines(), testing::ElementsAre("partial", "next"));
  for (int i = 0; i < 1000; ++i) ring.append(std::string(10000, 'x') + "\n");
  EXPECT_EQ(ring.lines().size(), LineRing::kMaxLines);
  EXPECT_EQ(ring.last().size(), LineRing::kMaxLineBytes);
}

TEST(ServerState, BacksOffUpToItsCapAndForgivesALongLife) {
  using namespace std::chrono_literals;
  ServerState state;
  ServerState::Clock::time_point now{};
  ServerState::Clock::duration last{};
  for (int i = 0; i < 20; ++i) {
    state.failed(now, 1s, "exited");
    const auto delay = state.next_start() - now;
    EXPECT_GE(delay, last);
    EXPECT_LE(delay, 30s);
    last = delay;
    EXPECT_EQ(state.is_failed(), i + 1 >= ServerState::kFailedAfter);
  }
  EXPECT_EQ(last, ServerState::Clock::duration(30s));
  state.failed(now, 1h, "exited");
  EXPECT_FALSE(state.is_failed());
  EXPECT_LE(state.next_start() - now, 100ms);
  EXPECT_EQ(state.crashes, 21U);
}

mcp::SessionRecord record(const std::string& id) {
  return {id, "server", "2025-11-25", R"({"jsonrpc":"2.0","id":1,"method":"initialize"})", ""};
}

TEST(SessionStore, KeepsWhatWasSavedAndDropsWhatIsBroken) {
  const Folder folder;
  const SessionStore store(folder.path() + "/sessions");
  ASSERT_TRUE(store.prepare());
  ASSERT_TRUE(store.save(record("a")));
  ASSERT_TRUE(store.save(record("b")));
  store.remove("b");
  std::ofstream(folder.path() + "/sessions/torn.json") << R"({"schema":1,"id":"to)";
  std::ofstream(folder.path() + "/sessions/other.json") << R"({"schema":99})";
  fs::copy_file(folder.path() + "/sessions/a.json", folder.path() + "/sessions/renamed.json");
  fs::create_symlink("/etc/passwd", folder.path() + "/sessions/link.json");
  const auto records = store.load_all();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].id, "a");
  EXPECT_EQ(records[0].initialize, record("a").initialize);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path() + "/sessions"), {}), 1);
}

TEST(SessionStore, WithoutADirectoryNothingIsKept) {
  const SessionStore store("");
  EXPECT_TRUE(store.prepare());
  EXPECT_TRUE(store.save(record("a")));
  EXPECT_TRUE(store.load_all().empty());
}

}  // namespace
}  // namespace agent_vm::gateway

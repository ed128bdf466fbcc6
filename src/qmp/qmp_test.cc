// Both clients against a peer that says whatever it likes: a QEMU that was taken over, and a guest
// that is hostile from the start (S24).
#include <gmock/gmock.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/text.h"
#include "os/files.h"
#include "qmp/guest_agent.h"
#include "qmp/qmp_client.h"

namespace agent_vm {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::HasSubstr;

class PeerTest : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> pair{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    ours_ = Fd(pair[0]);
    peer_ = std::make_unique<JsonStream>(io_, Fd(pair[1]), 1U << 20U, "peer");
  }

  // Runs `body` to its end; a test that hangs fails instead.
  void run(Task<void> body) {
    bool done = false;
    start_detached(io_, [](Task<void> task, bool& flag, asio::io_context& io) -> Task<void> {
      co_await std::move(task);
      flag = true;
      io.stop();
    }(std::move(body), done, io_));
    io_.run_for(std::chrono::seconds(10));
    EXPECT_TRUE(done) << "the test hangs";
  }

  // Answers each line with what `reply` makes of it; "" answers nothing.
  void answer(std::function<std::string(const json&)> reply) {
    start_detached(
        io_, [](JsonStream& peer, std::function<std::string(const json&)> make) -> Task<void> {
          while (true) {
            auto line = co_await peer.read_line();
            if (!line) co_return;
            if (line->starts_with('\xFF')) line->erase(0, 1);
            std::string text = make(json::parse(*line));
            if (!text.empty()) static_cast<void>(co_await peer.write_raw(std::move(text)));
          }
        }(*peer_, std::move(reply)));
  }

  asio::io_context io_{1};
  Fd ours_;
  std::unique_ptr<JsonStream> peer_;
};

Deadline soon() {
  return Deadline::in(milliseconds(2000));
}

class QmpTest : public PeerTest {};

TEST_F(QmpTest, MatchesRepliesByIdAndHandsOutEvents) {
  answer([](const json& command) {
    const std::string reply =
        json{{"return", command["execute"]}, {"id", command["id"]}}.dump() + "\n";
    // An event, a reply that nobody waits for, and only then the answer.
    return R"({"event":"RESUME","data":{"x":1}})"
           "\n"
           R"({"return":"stray","id":9999})"
           "\n" +
           reply;
  });
  run([](asio::io_context& io, Fd socket) -> Task<void> {
    QmpClient client(io, std::move(socket));
    int events = 0;
    QmpClient::EventHandler handler = [&](const std::string& name, const json& data) {
      EXPECT_EQ(name, "RESUME");
      EXPECT_EQ(data["x"], 1);
      ++events;
    };
    const auto started = co_await client.start(std::move(handler), soon());
    EXPECT_TRUE(started);
    json none = json::object();
    const auto reply = co_await client.execute("query-status", std::move(none), soon());
    EXPECT_TRUE(reply);
    EXPECT_EQ(*reply, "query-status");
    EXPECT_EQ(events, 2);
  }(io_, std::move(ours_)));
}

TEST_F(QmpTest, AnErrorNamesTheCommandAndQemusReason) {
  answer([](const json& command) {
    return json{{"error", {{"class", "GenericError"}, {"desc", "no \x1b such"}}},
                {"id", command["id"]}}
               .dump() +
           "\n";
  });
  run([](asio::io_context& io, Fd socket) -> Task<void> {
    QmpClient client(io, std::move(socket));
    const auto started = co_await client.start({}, soon());
    EXPECT_FALSE(started);
    EXPECT_THAT(started.error().message(),
                HasSubstr("qmp_capabilities: QEMU refused: no \\x1b such"));
  }(io_, std::move(ours_)));
}

TEST_F(QmpTest, ASilentQemuIsATimeoutAndADeadOneAnError) {
  run([](asio::io_context& io, Fd socket, JsonStream& peer) -> Task<void> {
    QmpClient client(io, std::move(socket));
    const auto silent = co_await client.start({}, Deadline::in(milliseconds(30)));
    EXPECT_FALSE(silent);
    EXPECT_EQ(silent.error().kind(), ErrorKind::kTimeout);
    peer.close();
    json none = json::object();
    const auto dead = co_await client.execute("query-status", std::move(none), soon());
    EXPECT_FALSE(dead);
    EXPECT_NE(dead.error().kind(), ErrorKind::kTimeout);
  }(io_, std::move(ours_), *peer_));
}

TEST_F(QmpTest, JunkAndEndlessLinesEndTheConversation) {
  answer([](const json&) { return std::string(5U << 20U, 'x') + "\n"; });
  run([](asio::io_context& io, Fd socket) -> Task<void> {
    QmpClient client(io, std::move(socket));
    const auto flooded = co_await client.start({}, soon());
    EXPECT_FALSE(flooded);
    EXPECT_THAT(flooded.error().message(), HasSubstr("sent a line of more than"));
  }(io_, std::move(ours_)));
}

class GuestAgentTest : public PeerTest {
 protected:
  void SetUp() override {
    PeerTest::SetUp();
    std::array<int, 2> pair{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    bell_ = Fd(pair[0]);
    rope_ = Fd(pair[1]);
  }
  void ring() { ASSERT_EQ(::write(rope_.get(), "\n", 1), 1); }

  // A well-behaved agent but for the reply to guest-exec-status.
  void answer_status(const std::string& status_reply,
                     const std::string& exec_reply = R"({"return":{"pid":7}})") {
    answer([=](const json& command) -> std::string {
      if (command["execute"] == "guest-sync-delimited") {
        return "\xFF" + json{{"return", command["arguments"]["id"]}}.dump() + "\n";
      }
      return (command["execute"] == "guest-exec" ? exec_reply : status_reply) + "\n";
    });
  }
  std::optional<Result<GuestCommandResult>> run_true(Deadline deadline = soon()) {
    std::optional<Result<GuestCommandResult>> result;
    run([](asio::io_context& io, Fd socket, Fd bell, Deadline by, auto& into) -> Task<void> {
      GuestAgent agent(io, std::move(socket), std::move(bell));
      std::vector<std::string> none;
      into = co_await agent.run("/bin/true", std::move(none), "input", by);
    }(io_, std::move(ours_), std::move(bell_), deadline, result));
    return result;
  }
  // A program that has ended at the twentieth question; `at_question` is called at each.
  std::optional<Result<GuestCommandResult>> run_long(const std::function<void()>& at_question) {
    int questions = 0;
    answer([&](const json& command) -> std::string {
      if (command["execute"] == "guest-sync-delimited") {
        return "\xFF" + json{{"return", command["arguments"]["id"]}}.dump() + "\n";
      }
      if (command["execute"] == "guest-exec") return "{\"return\":{\"pid\":7}}\n";
      at_question();
      return json{{"return", {{"exited", ++questions == 20}}}}.dump() + "\n";
    });
    return run_true(Deadline::in(milliseconds(700)));
  }

  Fd bell_;
  Fd rope_;
};

TEST_F(GuestAgentTest, RunsAProgram) {
  answer_status(R"({"return":{"exited":true,"exitcode":3,"out-data":"b3V0","err-data":"ZXJy"}})");
  const auto result = run_true();
  ASSERT_TRUE(result && *result);
  EXPECT_EQ((*result)->exit_code, 3);
  EXPECT_EQ((*result)->out, "out");
  EXPECT_EQ((*result)->error, "err");
}

TEST_F(GuestAgentTest, AsksWhenTheBellRings) {
  const auto result = run_long([&] { ring(); });
  ASSERT_TRUE(result);
  EXPECT_TRUE(*result) << result->error().message();
}

// The control: twenty questions take longer than the deadline.
TEST_F(GuestAgentTest, AsksNowAndThenWithoutABell) {
  int questions = 0;
  const auto result = run_long([&] { ++questions; });
  ASSERT_TRUE(result);
  ASSERT_FALSE(*result);
  EXPECT_EQ(result->error().kind(), ErrorKind::kTimeout);
  EXPECT_GT(questions, 3);
}

TEST_F(GuestAgentTest, S24_ABellThatRingsWithoutEndDoesNotMatter) {
  const std::string noise(1000, '\n');
  const auto result =
      run_long([&] { static_cast<void>(::send(rope_.get(), noise.data(), noise.size(), 0)); });
  ASSERT_TRUE(result);
  EXPECT_TRUE(*result);
}

TEST_F(GuestAgentTest, S24_HostileRepliesAreErrorsNeverCrashes) {
  const std::string deep = std::string(100'000, '[');
  for (const std::string& reply :
       {std::string("not json"), std::string("[]"), std::string("{}"), std::string("null"),
        std::string(R"({"return":7})"), std::string(R"({"return":{"exited":"yes"}})"),
        std::string(R"({"return":{"exited":true,"exitcode":"x"}})"),
        std::string(R"({"return":{"exited":true,"out-data":7}})"),
        std::string(R"({"return":{"exited":true,"out-data":"*"}})"),
        std::string("{\"return\":{\"exited\":true,\"exitcode\":1,\"out-data\":\"\xFF\xFE\"}}"),
        deep, std::string(R"({"error":{"desc":"no"}})"), std::string(5U << 20U, 'y')}) {
    TearDown();
    io_.restart();
    SetUp();
    answer_status(reply);
    const auto result = run_true();
    ASSERT_TRUE(result);
    EXPECT_FALSE(*result) << escape_line(reply.substr(0, 100));
  }
}

TEST_F(GuestAgentTest, S24_AnAgentThatNeverAnswersIsATimeout) {
  answer([](const json&) { return std::string(); });
  const auto result = run_true(Deadline::in(milliseconds(50)));
  ASSERT_TRUE(result);
  ASSERT_FALSE(*result);
  EXPECT_EQ(result->error().kind(), ErrorKind::kTimeout);
}

TEST_F(GuestAgentTest, RecoversFromAnAnswerThatCameTooLate) {
  std::string late;
  answer([&late](const json& command) -> std::string {
    if (command["execute"] == "guest-sync-delimited") {
      return std::exchange(late, "") + "\xFF" +
             json{{"return", command["arguments"]["id"]}}.dump() + "\n";
    }
    if (command["execute"] == "guest-exec" && command["arguments"]["path"] == "/slow") {
      late = "{\"return\":{\"pid\":1}}\n";
      return "";
    }
    return command["execute"] == "guest-exec" ? "{\"return\":{\"pid\":7}}\n"
                                              : "{\"return\":{\"exited\":true,\"exitcode\":5}}\n";
  });
  run([](asio::io_context& io, Fd socket, Fd bell) -> Task<void> {
    GuestAgent agent(io, std::move(socket), std::move(bell));
    std::vector<std::string> none;
    const auto slow = co_await agent.run("/slow", none, "", Deadline::in(milliseconds(50)));
    EXPECT_FALSE(slow);
    const auto quick = co_await agent.run("/quick", none, "", soon());
    EXPECT_TRUE(quick);
    EXPECT_EQ(quick->exit_code, 5);
  }(io_, std::move(ours_), std::move(bell_)));
}

TEST_F(GuestAgentTest, SynchronisesPastStaleReplies) {
  answer([](const json& command) -> std::string {
    if (command["execute"] == "guest-sync-delimited") {
      return "{\"return\":{\"old\":1}}\n{\"half\xFF" +
             json{{"return", command["arguments"]["id"]}}.dump() + "\n";
    }
    return command["execute"] == "guest-exec" ? "{\"return\":{\"pid\":7}}\n"
                                              : "{\"return\":{\"exited\":true,\"exitcode\":0}}\n";
  });
  const auto result = run_true();
  ASSERT_TRUE(result);
  EXPECT_TRUE(*result);
}

}  // namespace
}  // namespace agent_vm

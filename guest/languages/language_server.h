// A language server as a child process: its start, the texts that it has been told, what is asked
// of it, and its end. It is started by the first question, and again by the next one after it died.
// The process must ignore SIGPIPE: it may be written to when it has just died.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "languages/framing.h"
#include "process/child.h"
#include "workspace/schema.h"

namespace agent_vm::languages {

using workspace::Json;

struct LanguageSpec {
  std::vector<std::string> command;
  // Extension (without the dot) to the protocol's name of the language.
  std::map<std::string, std::string> extensions;
  Json options = Json::object();  // initializationOptions
  // Where it comes from, for who lacks it.
  std::string hint;
};

// What a language server answered.
struct Reply {
  Json result;
  bool indexing = false;  // it had not seen all files yet, and there was no more time to wait
};

class LanguageServer : public std::enable_shared_from_this<LanguageServer> {
 public:
  using Answer = std::function<void(Result<Reply>)>;
  // The content of a file by its absolute path.
  using Read = std::function<Result<std::string>(const std::string& path)>;

  LanguageServer(boost::asio::any_io_executor executor, LanguageSpec spec, std::string root,
                 Read read);
  ~LanguageServer();
  LanguageServer(const LanguageServer&) = delete;
  LanguageServer& operator=(const LanguageServer&) = delete;

  const LanguageSpec& spec() const { return spec_; }

  // Asks about the file `path` (absolute), as it is now. `answer` is called once.
  void ask(std::string path, std::string method, Json params, Answer answer);
  // Ends the child; nothing is answered any more.
  void stop();

 private:
  struct Question {
    std::string path;
    std::string method;
    Json params;
    Answer answer;
    std::chrono::steady_clock::time_point wait_until;  // for the index
  };
  using RawAnswer = std::function<void(Result<Json>)>;
  using Timer = std::shared_ptr<boost::asio::steady_timer>;
  struct Pending {
    RawAnswer answer;
    Timer timer;
  };
  struct Document {
    std::string text;
    int version = 1;
    std::uint64_t used = 0;
  };

  Status start();
  void greet();
  void put(Question question);
  void ask_again_when_idle(Question question);
  Status tell(const std::string& path);
  void tell_changes();
  void forget_oldest();
  void request(const std::string& method, Json params, RawAnswer answer);
  void notify(const std::string& method, Json params);
  void send(const Json& message);
  void receive(const Json& message);
  void receive_request(const Json& id, const std::string& method, const Json& params);
  void receive_progress(const Json& params);
  void lost(const Error& error);

  boost::asio::any_io_executor executor_;
  LanguageSpec spec_;
  std::string root_;
  Read read_;
  std::shared_ptr<process::Child> child_;
  FrameReader frames_;
  std::string last_words_;  // the end of its stderr
  bool ready_ = false;
  std::vector<Question> waiting_;  // for its start
  std::uint64_t next_id_ = 1;
  std::map<std::uint64_t, Pending> pending_;
  std::map<std::string, Document> documents_;  // by path
  std::uint64_t uses_ = 0;
  std::set<std::string> busy_;  // tokens of work that it has announced and not ended
  std::vector<Timer> idle_timers_;
};

}  // namespace agent_vm::languages

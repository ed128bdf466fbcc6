#include "languages/language_server.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "languages/place.h"
#include "workspace/environment.h"

namespace agent_vm::languages {
namespace {

using boost::system::error_code;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// For a server on a busy, emulated machine that reads its project first. A client that has waited
// long enough cancels.
constexpr auto kAnswerTimeout = 180s;
// How long a question waits until the index of all files is complete.
constexpr auto kIndexWait = 60s;
constexpr std::size_t kMaxDocuments = 32;
constexpr std::size_t kLastWords = 2000;

Json capabilities() {
  return {{"general", {{"positionEncodings", {"utf-16"}}}},
          {"window", {{"workDoneProgress", true}}},
          {"workspace", {{"workspaceFolders", true}, {"symbol", Json::object()}}},
          {"textDocument",
           {{"synchronization", Json::object()},
            {"definition", {{"linkSupport", false}}},
            {"references", Json::object()},
            {"hover", {{"contentFormat", {"plaintext", "markdown"}}}},
            {"documentSymbol", {{"hierarchicalDocumentSymbolSupport", true}}}}}};
}

std::string extension_of(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(dot + 1);
}

}  // namespace

LanguageServer::LanguageServer(boost::asio::any_io_executor executor, LanguageSpec spec,
                               std::string root, Read read)
    : executor_(std::move(executor)),
      spec_(std::move(spec)),
      root_(std::move(root)),
      read_(std::move(read)) {}

LanguageServer::~LanguageServer() {
  stop();
}

void LanguageServer::stop() {
  waiting_.clear();
  pending_.clear();
  for (const auto& timer : std::exchange(idle_timers_, {})) timer->cancel();
  if (!child_) return;
  child_->abandon();
  child_->stop({.after_eof = 1s, .after_term = 1s});
  child_.reset();  // it keeps itself until it is reaped
}

void LanguageServer::ask(std::string path, std::string method, Json params, Answer answer) {
  Question question{std::move(path), std::move(method), std::move(params), std::move(answer),
                    Clock::now() + kIndexWait};
  if (!child_) {
    if (const Status started = start(); !started) {
      question.answer(tl::unexpected(started.error()));
      return;
    }
  }
  if (ready_) {
    put(std::move(question));
  } else {
    waiting_.push_back(std::move(question));
  }
}

Status LanguageServer::start() {
  process::SpawnSpec spec;
  spec.argv = spec_.command;
  spec.environment = workspace::child_environment();
  spec.cwd = root_;
  // The child is abandoned before this object goes.
  process::Child::Events events;
  events.on_stdout = [this](std::string_view bytes) {
    const auto keep = shared_from_this();
    const Status fed = frames_.feed(bytes, [this](std::string_view frame) {
      const Json message = Json::parse(frame, nullptr, false);
      if (message.is_object()) receive(message);
    });
    if (!fed) lost(fed.error());
  };
  events.on_stderr = [this](std::string_view bytes) {
    last_words_ += bytes;
    if (last_words_.size() > kLastWords) last_words_.erase(0, last_words_.size() - kLastWords);
  };
  events.on_exit = [this](process::ExitStatus status) {
    const auto keep = shared_from_this();
    const std::string words(trim(last_words_));
    lost(Error(ErrorKind::kFailed,
               fmt::format("{} {}{}{}", spec_.command.front(), process::to_string(status),
                           words.empty() ? "" : ": ", escape_control(words))));
  };
  frames_ = {};
  last_words_.clear();
  auto child = process::Child::start(executor_, std::move(spec), std::move(events));
  if (!child) {
    return fail("cannot start {}: {}{}{}", spec_.command.front(), child.error().message(),
                spec_.hint.empty() ? "" : "; ", spec_.hint);
  }
  child_ = std::move(*child);
  greet();
  return {};
}

void LanguageServer::greet() {
  const Json folder = {{"uri", to_uri(root_)}, {"name", root_.substr(root_.rfind('/') + 1)}};
  request("initialize",
          {{"processId", ::getpid()},
           {"clientInfo", {{"name", "agent-lsp"}, {"version", AGENT_VM_VERSION}}},
           {"rootUri", folder.at("uri")},
           {"workspaceFolders", Json::array({folder})},
           {"capabilities", capabilities()},
           {"initializationOptions", spec_.options}},
          [this](const Result<Json>& result) {
            if (!result) {
              lost(result.error());
              return;
            }
            notify("initialized", Json::object());
            ready_ = true;
            for (auto& question : std::exchange(waiting_, {})) put(std::move(question));
          });
}

void LanguageServer::put(Question question) {
  tell_changes();
  if (const Status told = tell(question.path); !told) {
    question.answer(tl::unexpected(told.error()));
    return;
  }
  const std::string method = question.method;
  Json params = question.params;
  request(method, std::move(params),
          [this, question = std::move(question)](Result<Json> result) mutable {
            if (!result) {
              question.answer(tl::unexpected(std::move(result).error()));
            } else if (!busy_.empty() && Clock::now() < question.wait_until) {
              // What it has not read yet may hold the better answer.
              ask_again_when_idle(std::move(question));
            } else {
              question.answer(Reply{std::move(*result), !busy_.empty()});
            }
          });
}

void LanguageServer::ask_again_when_idle(Question question) {
  const auto timer = std::make_shared<boost::asio::steady_timer>(executor_, question.wait_until);
  idle_timers_.push_back(timer);
  timer->async_wait([weak = weak_from_this(), timer, question = std::move(question)](
                        const error_code& /*cancelled: idle*/) mutable {
    const auto self = weak.lock();
    if (!self) return;
    std::erase(self->idle_timers_, timer);
    if (self->child_ && self->ready_) {
      self->put(std::move(question));
    } else {
      question.answer(fail("{} ended before it answered", self->spec_.command.front()));
    }
  });
}

// Opens the file, unless the server has it.
Status LanguageServer::tell(const std::string& path) {
  if (const auto known = documents_.find(path); known != documents_.end()) {
    known->second.used = ++uses_;
    return {};
  }
  std::string text = TRY(read_(path));
  forget_oldest();
  const auto language = spec_.extensions.find(extension_of(path));
  notify("textDocument/didOpen",
         {{"textDocument",
           {{"uri", to_uri(path)},
            {"languageId", language == spec_.extensions.end() ? "" : language->second},
            {"version", 1},
            {"text", text}}}});
  documents_[path] = {.text = std::move(text), .used = ++uses_};
  return {};
}

// Files change without the server's knowledge: the agent edits them with other tools.
void LanguageServer::tell_changes() {
  for (auto at = documents_.begin(); at != documents_.end();) {
    auto& [path, document] = *at;
    auto text = read_(path);
    if (!text) {
      notify("textDocument/didClose", {{"textDocument", {{"uri", to_uri(path)}}}});
      at = documents_.erase(at);
      continue;
    }
    if (*text != document.text) {
      document.text = std::move(*text);
      ++document.version;
      notify("textDocument/didChange",
             {{"textDocument", {{"uri", to_uri(path)}, {"version", document.version}}},
              {"contentChanges", Json::array({{{"text", document.text}}})}});
    }
    ++at;
  }
}

void LanguageServer::forget_oldest() {
  if (documents_.size() < kMaxDocuments) return;
  const auto oldest = std::ranges::min_element(
      documents_, {}, [](const auto& document) { return document.second.used; });
  notify("textDocument/didClose", {{"textDocument", {{"uri", to_uri(oldest->first)}}}});
  documents_.erase(oldest);
}

void LanguageServer::request(const std::string& method, Json params, RawAnswer answer) {
  const std::uint64_t id = next_id_++;
  const auto timer = std::make_shared<boost::asio::steady_timer>(executor_, kAnswerTimeout);
  pending_[id] = {std::move(answer), timer};
  timer->async_wait([weak = weak_from_this(), id, method](const error_code& error) {
    const auto self = weak.lock();
    if (error || !self) return;
    auto pending = self->pending_.extract(id);
    if (pending.empty()) return;
    self->notify("$/cancelRequest", {{"id", id}});
    pending.mapped().answer(fail(ErrorKind::kTimeout, "{} did not answer {} within {} s",
                                 self->spec_.command.front(), method, kAnswerTimeout.count()));
  });
  send({{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", std::move(params)}});
}

void LanguageServer::notify(const std::string& method, Json params) {
  send({{"jsonrpc", "2.0"}, {"method", method}, {"params", std::move(params)}});
}

void LanguageServer::send(const Json& message) {
  // A source file need not be UTF-8; JSON must be.
  if (child_) child_->write(to_frame(message.dump(-1, ' ', false, Json::error_handler_t::replace)));
}

void LanguageServer::receive(const Json& message) {
  const auto method = message.find("method");
  const auto id = message.find("id");
  const Json params = message.value("params", Json());
  if (method != message.end() && method->is_string()) {
    if (id != message.end()) {
      receive_request(*id, *method, params);
    } else if (*method == "$/progress") {
      receive_progress(params);
    }
    return;
  }
  if (id == message.end() || !id->is_number_unsigned()) return;
  auto pending = pending_.extract(id->get<std::uint64_t>());
  if (pending.empty()) return;
  pending.mapped().timer->cancel();
  if (const auto error = message.find("error"); error != message.end() && error->is_object()) {
    pending.mapped().answer(fail("{} refused: {}", spec_.command.front(),
                                 escape_control(error->value("message", Json()).dump())));
  } else {
    pending.mapped().answer(message.value("result", Json()));
  }
}

// All of them are answered: some servers wait for that.
void LanguageServer::receive_request(const Json& id, const std::string& method,
                                     const Json& params) {
  Json result;
  if (method == "workspace/configuration" && params.is_object() && params.contains("items")) {
    result = Json::array();
    for (std::size_t i = 0; i < params.at("items").size(); ++i) result.push_back(nullptr);
  }
  send({{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(result)}});
}

void LanguageServer::receive_progress(const Json& params) {
  if (!params.is_object() || !params.contains("token") || !params.contains("value")) return;
  const Json& value = params.at("value");
  const Json kind = value.is_object() ? value.value("kind", Json()) : Json();
  const std::string token = params.at("token").dump();
  if (kind == "begin") busy_.insert(token);
  if (kind != "end" || busy_.erase(token) == 0 || !busy_.empty()) return;
  for (const auto& timer : idle_timers_) timer->cancel();
}

// Everything that waits for it fails; the next question starts it again.
void LanguageServer::lost(const Error& error) {
  if (child_) {
    child_->abandon();
    child_->stop({.after_eof = 1s, .after_term = 1s});
    child_.reset();
  }
  ready_ = false;
  documents_.clear();
  busy_.clear();
  for (const auto& timer : idle_timers_) timer->cancel();
  const auto waiting = std::exchange(waiting_, {});
  const auto pending = std::exchange(pending_, {});
  for (const auto& question : waiting) question.answer(tl::unexpected(error));
  for (const auto& [id, request] : pending) {
    request.timer->cancel();
    request.answer(tl::unexpected(error));
  }
}

}  // namespace agent_vm::languages

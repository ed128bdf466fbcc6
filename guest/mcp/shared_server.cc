#include "mcp/shared_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "mcp/json_object.h"

namespace agent_vm::mcp {
namespace {

constexpr std::string_view kHandshakeId = "\"agent-vm-initialize\"";
constexpr std::size_t kMaxInFlight = 1024;
constexpr std::size_t kMaxQuestions = 64;  // of one call
constexpr std::size_t kMaxHeld = 64;
constexpr std::size_t kMaxListeners = 256;
constexpr std::size_t kMaxUris = 256;  // of one listener
constexpr std::int64_t kParkedFor = 600;
constexpr std::int64_t kHeldFor = 30;

std::string request_line(std::uint64_t id, std::string_view method, std::string_view params) {
  return fmt::format(R"({{"jsonrpc":"2.0","id":{},"method":{},"params":{}}})", id,
                     quote_json(method), params);
}
std::string result_line(std::string_view id, std::string_view result) {
  return fmt::format(R"({{"jsonrpc":"2.0","id":{},"result":{}}})", id, result);
}
std::string notification_line(std::string_view method, std::string_view params) {
  return fmt::format(R"({{"jsonrpc":"2.0","method":{},"params":{}}})", quote_json(method), params);
}
std::string cancellation(std::uint64_t id) {
  return notification_line("notifications/cancelled", fmt::format(R"({{"requestId":{}}})", id));
}

int severity(std::string_view level) {
  constexpr std::array<std::string_view, 8> kLevels = {"debug", "info",     "notice", "warning",
                                                       "error", "critical", "alert",  "emergency"};
  const auto found = std::find(kLevels.begin(), kLevels.end(), level);
  return found == kLevels.end() ? -1 : static_cast<int>(found - kLevels.begin());
}

// The raw id of one of our own requests as a number; 0 when it is none.
std::uint64_t wire_number(std::string_view raw_id) {
  return parse_unsigned(raw_id).value_or(0);
}

// How a question is called in inputRequests.
std::string question_key(std::string_view raw_id) {
  const std::string key = id_key(raw_id);  // "s..." or "n..."
  return key.front() == 's' ? key.substr(1) : "input-" + key.substr(1);
}

bool is_cacheable(std::string_view method) {
  constexpr std::array<std::string_view, 6> kMethods = {
      "server/discover", "tools/list",     "prompts/list",
      "resources/list",  "resources/read", "resources/templates/list"};
  return std::find(kMethods.begin(), kMethods.end(), method) != kMethods.end();
}

// What a client must have declared for a question, and whether `capabilities` has it.
struct Needed {
  std::string_view capability;
  bool declared;
  std::string missing;  // raw, as requiredCapabilities names it
};
Needed needed_for(std::string_view method, std::string_view params, std::string_view capabilities) {
  if (method == "elicitation/create") {
    const std::string_view elicitation = member_of(capabilities, "elicitation");
    if (string_member_of(params, "mode").value_or("form") == "url") {
      return {"elicitation", !member_of(elicitation, "url").empty(),
              R"({"elicitation":{"url":{}}})"};
    }
    return {"elicitation", !elicitation.empty(), R"({"elicitation":{}})"};
  }
  const std::string_view name = method == "roots/list" ? "roots" : "sampling";
  return {name, !member_of(capabilities, name).empty(), fmt::format(R"({{"{}":{{}}}})", name)};
}

bool is_question(std::string_view method) {
  return method == "sampling/createMessage" || method == "elicitation/create" ||
         method == "roots/list";
}

// Methods of earlier revisions that this one does not have any more.
bool is_removed(std::string_view method) {
  constexpr std::array<std::string_view, 5> kRemoved = {
      "initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"};
  return std::find(kRemoved.begin(), kRemoved.end(), method) != kRemoved.end();
}

}  // namespace

SharedServer::SharedServer(std::uint64_t number, std::string capabilities, std::string client_info,
                           const StateSigner& signer, std::shared_ptr<ServerKnowledge> knowledge,
                           EventStream::Limits limits)
    : ServerSide(limits),
      number_(number),
      capabilities_(std::move(capabilities)),
      client_info_(std::move(client_info)),
      signer_(signer),
      knowledge_(std::move(knowledge)) {
  if (client_info_.empty()) client_info_ = R"({"name":"agent-mcp","version":"1"})";
}

std::vector<std::string> SharedServer::server_started() {
  std::string line =
      fmt::format(R"({{"jsonrpc":"2.0","id":{},"method":"initialize","params":{{"protocolVersion":)"
                  R"("2025-11-25","capabilities":{},"clientInfo":{}}}}})",
                  kHandshakeId, capabilities_, client_info_);
  to_one_line(line);
  return {std::move(line)};
}

bool SharedServer::parked() const {
  return std::any_of(calls_.begin(), calls_.end(), [](const auto& entry) {
    return entry.second.stream == 0 || !entry.second.questions.empty();
  });
}

bool SharedServer::busy() const {
  return std::any_of(calls_.begin(), calls_.end(),
                     [](const auto& entry) { return entry.second.interactive; });
}

SharedServer::Calls::iterator SharedServer::call_of(StreamId stream) {
  return std::find_if(calls_.begin(), calls_.end(),
                      [&](const auto& entry) { return entry.second.stream == stream; });
}

// ------------------------------------------------------------------ from the client

tl::expected<SharedServer::Accepted, Refusal> SharedServer::request(const StatelessRequest& request,
                                                                    std::int64_t now) {
  if (is_removed(request.method)) {
    return tl::unexpected(
        refuse(kMethodNotFound, "this revision has no method " + request.method, request.id, 404));
  }
  if (calls_.size() >= kMaxInFlight || listeners_.size() >= kMaxListeners) {
    return tl::unexpected(
        refuse(kInternalError, "too many requests are in flight already", request.id, 429));
  }
  if (request.method == "server/discover") return discover(request);
  if (request.method == "subscriptions/listen") return listen(request);
  if (!request.request_state.empty()) return retry(request, now);
  return forward(request);
}

SharedServer::Accepted SharedServer::discover(const StatelessRequest& request) {
  Call call;
  call.method = request.method;
  ObjectEdit capabilities;  // experimental in 2025-11-25, and an extension of another form now
  capabilities.remove.emplace("tasks");
  const std::string_view offered = member_of(handshake_, "capabilities");
  ObjectEdit result;
  result.set["supportedVersions"] = supported_versions();
  result.set["capabilities"] = edit_object(offered, capabilities);
  if (const auto text = member_of(handshake_, "instructions"); !text.empty()) {
    result.set["instructions"] = text;
  }
  const std::string body = translate_result(call, edit_object("{}", result));
  Accepted accepted;
  EventStream& stream = open_stream();
  accepted.stream = stream.id();
  std::vector<StreamId> ignored;
  push(accepted.stream, result_line(request.id, body), ignored);
  stream.finish();
  return accepted;
}

SharedServer::Accepted SharedServer::listen(const StatelessRequest& request) {
  const std::string_view offered = member_of(handshake_, "capabilities");
  Listener listener;
  listener.id = request.id;
  ObjectEdit honored;
  const auto flag = [&](const char* wanted, const char* kind) {
    if (member_of(request.notifications, wanted) != "true") return;
    if (member_of(member_of(offered, kind), "listChanged") != "true") return;
    listener.kinds.insert(kind);
    honored.set[wanted] = "true";
  };
  flag("toolsListChanged", "tools");
  flag("promptsListChanged", "prompts");
  flag("resourcesListChanged", "resources");
  Accepted accepted;
  if (member_of(member_of(offered, "resources"), "subscribe") == "true") {
    std::string uris;
    for (const std::string& uri :
         strings_of(member_of(request.notifications, "resourceSubscriptions"))) {
      if (listener.uris.size() >= kMaxUris || !listener.uris.insert(uri).second) continue;
      uris += (uris.empty() ? "" : ",") + quote_json(uri);
      const bool known = std::any_of(listeners_.begin(), listeners_.end(), [&](const auto& other) {
        return other.second.uris.count(uri) != 0;
      });
      if (!known) accepted.to_server.push_back(subscribe("subscribe", uri));
    }
    if (!uris.empty()) honored.set["resourceSubscriptions"] = "[" + uris + "]";
  }
  accepted.stream = open_stream().id();
  std::vector<StreamId> ignored;
  push(accepted.stream,
       notification_line("notifications/subscriptions/acknowledged",
                         fmt::format(R"({{"_meta":{{"{}":{}}},"notifications":{}}})",
                                     kMetaSubscription, listener.id, edit_object("{}", honored))),
       ignored);
  listeners_.emplace(accepted.stream, std::move(listener));
  return accepted;
}

std::string SharedServer::subscribe(std::string_view verb, const std::string& uri) {
  const std::uint64_t id = next_id_++;
  own_.insert(id);
  return request_line(id, fmt::format("resources/{}", verb),
                      fmt::format(R"({{"uri":{}}})", quote_json(uri)));
}

tl::expected<SharedServer::Accepted, Refusal> SharedServer::retry(const StatelessRequest& request,
                                                                  std::int64_t now) {
  const auto state = signer_.verify(request.request_state, now);
  if (!state) return tl::unexpected(refuse(kInvalidParams, state.error(), request.id));
  const auto call = calls_.find(state->call);
  if (state->server != number_ || call == calls_.end()) {
    return tl::unexpected(
        refuse(kInvalidParams, "the call of this requestState has ended; call again", request.id));
  }
  if (state->digest != request.digest || state->digest != call->second.digest) {
    return tl::unexpected(
        refuse(kInvalidParams, "this requestState belongs to another request", request.id));
  }
  if (call->second.stream != 0 || call->second.round != state->round) {
    return tl::unexpected(refuse(kInvalidParams, "this requestState was used already", request.id));
  }
  Accepted accepted;
  accepted.stream = open_stream().id();
  Call& parked = call->second;
  parked.stream = accepted.stream;
  parked.id = request.id;
  parked.log_level = request.log_level;
  // The server was given a token, or none, with the first request; only its meaning can change.
  parked.token = request.progress_token;
  ++parked.round;
  for (const auto& [key, answer] : request.input_responses) {
    const auto question = parked.questions.find(key);
    if (question == parked.questions.end()) continue;
    accepted.to_server.push_back(result_line(question->second.id, answer));
    parked.questions.erase(question);
  }
  for (std::string& line : accepted.to_server) to_one_line(line);
  if (!parked.result.empty()) {
    FromServer effects;
    const std::string text = std::move(parked.result);
    if (const auto envelope = parse_message(text)) handle_response(text, *envelope, effects);
  }
  return accepted;
}

tl::expected<SharedServer::Accepted, Refusal> SharedServer::forward(
    const StatelessRequest& request) {
  if (request.method == "tools/call") {
    const auto mismatch = knowledge_->param_headers.mismatch(
        request.name, member_of(request.params, "arguments"), request.param_headers);
    if (mismatch) {
      return tl::unexpected(refuse(kHeaderMismatch, "Header mismatch: " + *mismatch, request.id));
    }
  }
  const std::uint64_t number = next_id_++;
  Call call;
  call.id = request.id;
  call.method = request.method;
  call.name = request.name;
  call.digest = request.digest;
  call.token = request.progress_token;
  call.log_level = request.log_level;
  call.answers = request.input_responses;
  call.interactive = request.interactive();
  std::string params = request.params;
  if (!call.token.empty()) {
    ObjectEdit meta;
    meta.set["progressToken"] = std::to_string(number);
    ObjectEdit edit;
    edit.set["_meta"] = edit_object(member_of(params, "_meta"), meta);
    params = edit_object(params, edit);
  }
  Accepted accepted;
  set_log_level(call.log_level, accepted.to_server);
  accepted.to_server.push_back(request_line(number, request.method, params));
  to_one_line(accepted.to_server.back());
  accepted.stream = open_stream().id();
  call.stream = accepted.stream;
  calls_.emplace(number, std::move(call));
  return accepted;
}

// Log levels are a request's own here and the whole connection's there: the server is told the most
// talkative level that anybody wanted, and each request gets what it asked for.
void SharedServer::set_log_level(const std::string& wanted, std::vector<std::string>& to_server) {
  if (severity(wanted) < 0 || member_of(member_of(handshake_, "capabilities"), "logging").empty()) {
    return;
  }
  if (!log_level_.empty() && severity(log_level_) <= severity(wanted)) return;
  log_level_ = wanted;
  const std::uint64_t id = next_id_++;
  own_.insert(id);
  to_server.push_back(
      request_line(id, "logging/setLevel", fmt::format(R"({{"level":"{}"}})", wanted)));
}

std::vector<std::string> SharedServer::cancel(StreamId stream) {
  std::vector<std::string> lines;
  drop_stream(stream);
  if (const auto listener = listeners_.find(stream); listener != listeners_.end()) {
    const std::set<std::string> uris = std::move(listener->second.uris);
    listeners_.erase(listener);
    for (const std::string& uri : uris) {
      const bool wanted = std::any_of(listeners_.begin(), listeners_.end(), [&](const auto& other) {
        return other.second.uris.count(uri) != 0;
      });
      if (!wanted && ready_) lines.push_back(subscribe("unsubscribe", uri));
    }
    return lines;
  }
  const auto call = stream == 0 ? calls_.end() : call_of(stream);
  if (call == calls_.end()) return lines;
  lines.push_back(cancellation(call->first));
  ghosts_.insert(call->first);
  calls_.erase(call);
  return lines;
}

bool SharedServer::input_wanted(StreamId stream) const {
  return std::any_of(calls_.begin(), calls_.end(), [&](const auto& entry) {
    return entry.second.stream == stream && !entry.second.questions.empty();
  });
}

std::vector<StreamId> SharedServer::conclude_with_input(StreamId stream, std::int64_t now) {
  std::vector<StreamId> touched;
  const auto found = call_of(stream);
  if (found == calls_.end()) return touched;
  Call& call = found->second;
  std::string requests;
  for (const auto& [key, question] : call.questions) {
    requests += fmt::format(R"({}{}:{{"method":{},"params":{}}})", requests.empty() ? "" : ",",
                            quote_json(key), quote_json(question.method), question.params);
  }
  call.expires = now + kParkedFor;
  const std::string state =
      signer_.sign({number_, found->first, call.round, call.expires, call.digest});
  const std::string body = translate_result(
      call,
      fmt::format(R"({{"resultType":"input_required","inputRequests":{{{}}},"requestState":{}}})",
                  requests, quote_json(state)));
  push(stream, result_line(call.id, body), touched);
  finish(stream, touched);
  call.stream = 0;
  return touched;
}

std::vector<std::string> SharedServer::sweep(std::int64_t now) {
  std::vector<std::string> lines;
  for (auto call = calls_.begin(); call != calls_.end();) {
    if (call->second.stream == 0 && now >= call->second.expires) {
      if (call->second.result.empty()) {
        lines.push_back(cancellation(call->first));
        ghosts_.insert(call->first);
      }
      call = calls_.erase(call);
    } else {
      ++call;
    }
  }
  for (auto held = held_.begin(); held != held_.end();) {
    if (held->since == 0) held->since = now;
    if (now - held->since < kHeldFor) {
      ++held;
      continue;
    }
    if (const auto envelope = parse_message(held->line)) {
      lines.push_back(error_message(envelope->id, kInternalError,
                                    "the gateway cannot tell which request asks this"));
    }
    held = held_.erase(held);
  }
  return lines;
}

// ------------------------------------------------------------------ from the server

ServerSide::FromServer SharedServer::server_line(std::string_view line, std::string_view about) {
  FromServer effects;
  handle_line(line, about, effects);
  for (std::string& reply : effects.to_server) to_one_line(reply);
  return effects;
}

void SharedServer::handle_line(std::string_view text, std::string_view about, FromServer& effects) {
  const auto envelope = parse_message(text);
  if (!envelope) {
    effects.junk = true;
    return;
  }
  switch (envelope->kind) {
    case MessageKind::kResponse:
      if (envelope->id == kHandshakeId) return handle_handshake(text, *envelope, effects);
      return handle_response(text, *envelope, effects);
    case MessageKind::kRequest:
      return handle_request(text, *envelope, about, effects);
    case MessageKind::kNotification:
      return handle_notification(text, *envelope, about, effects);
  }
}

void SharedServer::handle_handshake(std::string_view text, const Envelope& envelope,
                                    FromServer& effects) {
  if (ready_) {
    effects.junk = true;
    return;
  }
  if (envelope.is_error || !object_members(member_of(text, "result"))) {
    effects.handshake_failure = "it refused initialize";
    return;
  }
  handshake_ = member_of(text, "result");
  ready_ = true;
  effects.became_ready = true;
  effects.to_server.push_back(R"({"jsonrpc":"2.0","method":"notifications/initialized"})");
  std::set<std::string> uris;
  for (const auto& [stream, listener] : listeners_) {
    uris.insert(listener.uris.begin(), listener.uris.end());
  }
  for (const std::string& uri : uris) effects.to_server.push_back(subscribe("subscribe", uri));
}

void SharedServer::handle_response(std::string_view text, const Envelope& envelope,
                                   FromServer& effects) {
  const std::uint64_t number = wire_number(envelope.id);
  const auto call = calls_.find(number);
  if (call == calls_.end()) {
    const bool expected = own_.erase(number) + ghosts_.erase(number) > 0;
    effects.junk = !expected;
    if (expected) ask_held(effects);
    return;
  }
  if (call->second.stream == 0) {  // its client has not come back yet
    call->second.result = text;
    call->second.questions.clear();
    return;
  }
  if (call->second.method == "tools/list")
    knowledge_->param_headers.learn(member_of(text, "result"));
  std::string message =
      envelope.is_error
          ? translate_error(call->second, member_of(text, "error"))
          : result_line(call->second.id, translate_result(call->second, member_of(text, "result")));
  answer_client(call, std::move(message), effects);
}

void SharedServer::answer_client(Calls::iterator call, std::string message, FromServer& effects) {
  const StreamId stream = call->second.stream;
  push(stream, std::move(message), effects.touched);
  finish(stream, effects.touched);
  calls_.erase(call);
  ask_held(effects);
}

std::string SharedServer::translate_result(const Call& call, std::string_view result) const {
  ObjectEdit edit;
  if (member_of(result, "resultType").empty()) edit.set["resultType"] = "\"complete\"";
  if (is_cacheable(call.method)) {
    // Nothing is known about how long it holds, and it may be one owner's.
    if (member_of(result, "ttlMs").empty()) edit.set["ttlMs"] = "0";
    if (member_of(result, "cacheScope").empty()) edit.set["cacheScope"] = "\"private\"";
  }
  const std::string_view meta = member_of(result, "_meta");
  const std::string_view info = member_of(handshake_, "serverInfo");
  if (!info.empty() && member_of(meta, kMetaServerInfo).empty()) {
    ObjectEdit identified;
    identified.set[std::string(kMetaServerInfo)] = info;
    edit.set["_meta"] = edit_object(meta, identified);
  }
  return edit_object(result, edit);
}

std::string SharedServer::translate_error(const Call& call, std::string_view error) const {
  const std::string_view code = member_of(error, "code");
  if (code == std::to_string(kUrlElicitationRequired)) return translate_url_error(call, error);
  ObjectEdit edit;
  if (code == std::to_string(kResourceNotFound)) edit.set["code"] = std::to_string(kInvalidParams);
  if (call.method == "resources/read" && member_of(error, "data").empty()) {
    edit.set["data"] = fmt::format(R"({{"uri":{}}})", quote_json(call.name));
  }
  return fmt::format(R"({{"jsonrpc":"2.0","id":{},"error":{}}})", call.id,
                     edit_object(error, edit));
}

// "Visit these addresses, then call again" was an error in 2025-11-25. The call has ended, so that
// there is no state: the retry is a call of its own.
std::string SharedServer::translate_url_error(const Call& call, std::string_view error) const {
  std::string requests;
  std::size_t count = 0;
  for (const std::string_view one :
       elements_of(member_of(member_of(error, "data"), "elicitations"))) {
    ObjectEdit edit;
    edit.remove.emplace("elicitationId");
    edit.set["mode"] = "\"url\"";
    requests += fmt::format(R"({}"url-{}":{{"method":"elicitation/create","params":{}}})",
                            requests.empty() ? "" : ",", ++count, edit_object(one, edit));
  }
  const Needed needed = needed_for("elicitation/create", R"({"mode":"url"})", capabilities_);
  if (!needed.declared) {
    return error_message(call.id, kMissingClientCapability,
                         "this needs a client that can open an address",
                         fmt::format(R"({{"requiredCapabilities":{}}})", needed.missing));
  }
  return result_line(call.id,
                     translate_result(call, fmt::format(R"({{"resultType":"input_required",)"
                                                        R"("inputRequests":{{{}}}}})",
                                                        requests)));
}

SharedServer::Calls::iterator SharedServer::owner(std::string_view about, bool of_question) {
  if (!about.empty()) return calls_.find(wire_number(about));
  auto only = calls_.end();
  for (auto call = calls_.begin(); call != calls_.end(); ++call) {
    const bool possible = of_question ? call->second.interactive : call->second.stream != 0;
    if (!possible) continue;
    if (only != calls_.end()) return calls_.end();
    only = call;
  }
  return ghosts_.empty() ? only : calls_.end();
}

void SharedServer::handle_request(std::string_view text, const Envelope& envelope,
                                  std::string_view about, FromServer& effects) {
  if (envelope.method == "ping") {
    effects.to_server.push_back(result_line(envelope.id, "{}"));
    return;
  }
  if (!is_question(envelope.method)) {
    effects.to_server.push_back(
        error_message(envelope.id, kMethodNotFound, "the client has no such method"));
    return;
  }
  knowledge_->asks = true;
  const auto call = owner(about, true);
  if (call != calls_.end()) return ask(call, text, envelope, effects);
  const Needed needed = needed_for(envelope.method, member_of(text, "params"), capabilities_);
  if (!needed.declared) {
    effects.to_server.push_back(error_message(
        envelope.id, kMethodNotFound, fmt::format("no client declared {}", needed.capability)));
    return;
  }
  const bool several = ghosts_.empty() && about.empty() && calls_.size() > 1;
  if (several && held_.size() < kMaxHeld) {
    held_.push_back({std::string(text), 0});
    return;
  }
  tainted_ = tainted_ || !ghosts_.empty();
  effects.to_server.push_back(error_message(envelope.id, kInternalError,
                                            "the gateway cannot tell which request asks this"));
}

// Fewer calls are in flight than before: it may be clear now who asks.
void SharedServer::ask_held(FromServer& effects) {
  while (!held_.empty()) {
    const auto call = owner({}, true);
    if (call == calls_.end()) return;
    const std::string line = std::move(held_.front().line);
    held_.erase(held_.begin());
    if (const auto envelope = parse_message(line)) ask(call, line, *envelope, effects);
  }
}

void SharedServer::ask(Calls::iterator call, std::string_view text, const Envelope& envelope,
                       FromServer& effects) {
  const std::string_view params = member_of(text, "params");
  if (!needed_for(envelope.method, params, capabilities_).declared) {
    return refuse_undeclared(call, envelope, params, effects);
  }
  Call& asking = call->second;
  const std::string key = question_key(envelope.id);
  if (const auto known = asking.answers.find(key); known != asking.answers.end()) {
    effects.to_server.push_back(result_line(envelope.id, known->second));
    asking.answers.erase(known);
    return;
  }
  if (asking.questions.size() >= kMaxQuestions) {
    effects.to_server.push_back(error_message(envelope.id, kInternalError, "too many questions"));
    return;
  }
  ObjectEdit edit;
  edit.remove.emplace("elicitationId");  // not of this revision
  asking.questions[key] = {std::string(envelope.id), envelope.method, edit_object(params, edit)};
  if (asking.stream != 0) effects.touched.push_back(asking.stream);
}

void SharedServer::refuse_undeclared(Calls::iterator call, const Envelope& envelope,
                                     std::string_view params, FromServer& effects) {
  const Needed needed = needed_for(envelope.method, params, capabilities_);
  effects.to_server.push_back(
      error_message(envelope.id, kMethodNotFound,
                    fmt::format("the client did not declare {}", needed.capability)));
  effects.to_server.push_back(cancellation(call->first));
  ghosts_.insert(call->first);
  answer_client(call,
                error_message(call->second.id, kMissingClientCapability,
                              fmt::format("this needs a client that declares the capability {}",
                                          needed.capability),
                              fmt::format(R"({{"requiredCapabilities":{}}})", needed.missing)),
                effects);
}

void SharedServer::handle_notification(std::string_view text, const Envelope& envelope,
                                       std::string_view about, FromServer& effects) {
  const std::string& method = envelope.method;
  if (method == "notifications/progress") {
    const auto call = calls_.find(wire_number(envelope.progress_of));
    if (call == calls_.end() || call->second.stream == 0 || call->second.token.empty()) return;
    push(call->second.stream, with_id(text, envelope.progress_of, call->second.token),
         effects.touched);
  } else if (method == "notifications/message") {
    const auto call = owner(about, false);
    if (call == calls_.end() || call->second.stream == 0 || call->second.log_level.empty()) return;
    const auto level = string_member_of(member_of(text, "params"), "level");
    if (severity(level.value_or("")) < severity(call->second.log_level)) return;
    push(call->second.stream, std::string(text), effects.touched);
  } else if (method == "notifications/cancelled") {
    // The server takes a question back.
    const std::string key = id_key(envelope.request_id);
    for (auto& [number, call] : calls_) {
      std::erase_if(call.questions, [&](const auto& q) { return id_key(q.second.id) == key; });
    }
    std::erase_if(held_, [&](const Held& held) {
      const auto parsed = parse_message(held.line);
      return parsed && id_key(parsed->id) == key;
    });
  } else {
    handle_change(text, envelope, effects);
  }
}

// Lists and resources that changed, for those who listen.
void SharedServer::handle_change(std::string_view text, const Envelope& envelope,
                                 FromServer& effects) {
  const std::string_view params = member_of(text, "params");
  const auto parts = split(envelope.method, '/');
  const std::string kind = parts.size() == 3 ? parts[1] : "";
  const bool list = kind.size() > 0 && parts[2] == "list_changed";
  const bool resource = envelope.method == "notifications/resources/updated";
  if (envelope.method == "notifications/tools/list_changed") knowledge_->param_headers.forget();
  const std::string uri = resource ? string_member_of(params, "uri").value_or("") : "";
  for (const auto& [stream, listener] : listeners_) {
    const bool wanted =
        (list && listener.kinds.count(kind) != 0) || (resource && listener.uris.count(uri) != 0);
    if (!wanted) continue;
    ObjectEdit meta;
    meta.set[std::string(kMetaSubscription)] = listener.id;
    ObjectEdit edit;
    edit.set["_meta"] = edit_object(member_of(params, "_meta"), meta);
    push(stream, notification_line(envelope.method, edit_object(params, edit)), effects.touched);
  }
}

std::vector<StreamId> SharedServer::server_lost(std::string_view reason) {
  std::vector<StreamId> touched;
  ready_ = false;
  tainted_ = false;
  log_level_.clear();
  ghosts_.clear();
  own_.clear();
  held_.clear();
  for (const auto& [number, call] : calls_) {
    if (call.stream == 0) continue;
    push(call.stream, error_message(call.id, kServerUnavailable, reason), touched);
    finish(call.stream, touched);
  }
  calls_.clear();
  return touched;
}

}  // namespace agent_vm::mcp

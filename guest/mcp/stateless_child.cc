#include "mcp/stateless_child.h"

#include <fmt/format.h>

#include <algorithm>

#include "mcp/json_object.h"
#include "mcp/stateless_request.h"

namespace agent_vm::mcp {
namespace {

constexpr std::string_view kDiscoverId = "\"agent-vm-discover\"";
// A server that asks for ever must not keep a call, and the gateway, busy for ever.
constexpr std::size_t kMaxRounds = 64;
constexpr std::size_t kMaxOpen = 1024;

std::string result_line(std::string_view id, std::string_view result) {
  return fmt::format(R"({{"jsonrpc":"2.0","id":{},"result":{}}})", id, result);
}

bool is_flag(std::string_view capabilities, std::string_view kind, std::string_view name) {
  return member_of(member_of(capabilities, kind), name) == "true";
}

}  // namespace

StatelessChild::Lines StatelessChild::from_client(std::string line) {
  Lines lines;
  const auto envelope = parse_message(line);
  if (state_ == State::kWaiting && envelope && envelope->method == "initialize") {
    initialize_ = line;
    state_ = State::kOffered;
  }
  if (state_ != State::kTranslating || !envelope) {
    lines.to_server.push_back(std::move(line));
    return lines;
  }
  if (envelope->kind == MessageKind::kResponse) {
    handle_answer(line, *envelope, lines);
  } else if (envelope->kind == MessageKind::kRequest) {
    handle_request(line, *envelope, lines);
  } else if (envelope->method == "notifications/cancelled") {
    cancel(*envelope, lines);
  } else if (envelope->method == "notifications/initialized") {
    listen(lines);
  }
  return lines;
}

StatelessChild::Lines StatelessChild::from_server(std::string_view line) {
  Lines lines;
  const auto envelope = parse_message(line);
  if (!envelope) {
    lines.to_client.push_back({std::string(line), {}});  // counted there as what it is
    return lines;
  }
  const bool response = envelope->kind == MessageKind::kResponse;
  if (state_ == State::kOffered && response &&
      id_key(envelope->id) == id_key(member_of(initialize_, "id"))) {
    if (envelope->is_error) {
      refusal_ = line;
      discover(lines);
      return lines;
    }
    state_ = State::kTransparent;
  }
  if (state_ == State::kDiscovering && response && envelope->id == kDiscoverId) {
    handle_discovery(line, *envelope, lines);
    return lines;
  }
  if (state_ != State::kTranslating) {
    lines.to_client.push_back({std::string(line), {}});
    return lines;
  }
  if (response) {
    handle_result(line, *envelope, lines);
  } else if (envelope->kind == MessageKind::kNotification &&
             envelope->method != "notifications/cancelled" &&
             envelope->method != "notifications/subscriptions/acknowledged") {
    lines.to_client.push_back({std::string(line), {}});
  }
  return lines;
}

std::string StatelessChild::with_metadata(std::string_view params) const {
  const std::string_view offered = member_of(initialize_, "params");
  ObjectEdit meta;
  meta.set[std::string(kMetaVersion)] = quote_json(kStatelessVersion);
  const std::string_view capabilities = member_of(offered, "capabilities");
  meta.set[std::string(kMetaCapabilities)] = capabilities.empty() ? "{}" : capabilities;
  const std::string_view info = member_of(offered, "clientInfo");
  if (!info.empty()) meta.set[std::string(kMetaClientInfo)] = info;
  if (!log_level_.empty()) meta.set[std::string(kMetaLogLevel)] = quote_json(log_level_);
  ObjectEdit edit;
  edit.set["_meta"] = edit_object(member_of(params, "_meta"), meta);
  return edit_object(params, edit);
}

void StatelessChild::discover(Lines& lines) {
  state_ = State::kDiscovering;
  lines.to_server.push_back(
      fmt::format(R"({{"jsonrpc":"2.0","id":{},"method":"server/discover","params":{}}})",
                  kDiscoverId, with_metadata("{}")));
}

void StatelessChild::handle_discovery(std::string_view text, const Envelope& envelope,
                                      Lines& lines) {
  const std::string_view found = member_of(text, "result");
  const auto versions = strings_of(member_of(found, "supportedVersions"));
  const bool known =
      std::find(versions.begin(), versions.end(), kStatelessVersion) != versions.end();
  if (envelope.is_error || !known) {
    state_ = State::kTransparent;
    lines.to_client.push_back({refusal_, {}});
    return;
  }
  state_ = State::kTranslating;
  capabilities_ = member_of(found, "capabilities");
  const auto asked = string_member_of(member_of(initialize_, "params"), "protocolVersion");
  std::string_view info = member_of(member_of(found, "_meta"), kMetaServerInfo);
  if (info.empty()) info = member_of(found, "serverInfo");
  ObjectEdit result;
  result.set["protocolVersion"] =
      quote_json(asked && is_handshake_version(*asked) ? *asked : "2025-11-25");
  result.set["capabilities"] = capabilities_.empty() ? "{}" : capabilities_;
  result.set["serverInfo"] = info.empty() ? R"({"name":"server","version":"unknown"})" : info;
  if (const auto text_member = member_of(found, "instructions"); !text_member.empty()) {
    result.set["instructions"] = text_member;
  }
  lines.to_client.push_back(
      {result_line(member_of(initialize_, "id"), edit_object("{}", result)), {}});
}

void StatelessChild::handle_request(std::string line, const Envelope& envelope, Lines& lines) {
  const std::string id(envelope.id);
  const std::string_view params = member_of(line, "params");
  const auto done = [&] { lines.to_client.push_back({result_line(id, "{}"), {}}); };
  if (envelope.method == "ping") return done();
  if (envelope.method == "logging/setLevel") {
    log_level_ = string_member_of(params, "level").value_or("");
    return done();
  }
  if (envelope.method == "resources/subscribe" || envelope.method == "resources/unsubscribe") {
    const std::string uri = string_member_of(params, "uri").value_or("");
    if (envelope.method == "resources/unsubscribe") {
      uris_.erase(uri);
    } else if (uris_.size() < kMaxOpen) {
      uris_.insert(uri);
    }
    listen(lines);
    return done();
  }
  ObjectEdit edit;
  edit.set["params"] = with_metadata(params);
  lines.to_server.push_back(edit_object(line, edit));
  Call call;
  call.id = id;
  call.line = std::move(line);
  calls_[id_key(id)] = std::move(call);
}

// What a client of 2025-11-25 hears unasked, and what it subscribed to, is one subscription here. A
// changed one replaces it.
void StatelessChild::listen(Lines& lines) {
  ObjectEdit wanted;
  for (const auto& [kind, name] :
       {std::pair("tools", "toolsListChanged"), std::pair("prompts", "promptsListChanged"),
        std::pair("resources", "resourcesListChanged")}) {
    if (is_flag(capabilities_, kind, "listChanged")) wanted.set[name] = "true";
  }
  std::string uris;
  for (const std::string& uri : uris_) uris += (uris.empty() ? "" : ",") + quote_json(uri);
  if (!uris.empty()) wanted.set["resourceSubscriptions"] = "[" + uris + "]";
  const std::string before = std::exchange(listening_, {});
  if (!wanted.set.empty()) {
    listening_ = fmt::format("\"agent-vm-listen-{}\"", next_++);
    ObjectEdit params;
    params.set["notifications"] = edit_object("{}", wanted);
    lines.to_server.push_back(
        fmt::format(R"({{"jsonrpc":"2.0","id":{},"method":"subscriptions/listen","params":{}}})",
                    listening_, with_metadata(edit_object("{}", params))));
  }
  // The old one ends after the new one has begun, so that nothing is missed in between.
  if (!before.empty()) {
    lines.to_server.push_back(fmt::format(
        R"({{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{}}}}})",
        before));
  }
}

void StatelessChild::handle_result(std::string_view text, const Envelope& envelope, Lines& lines) {
  const auto call = calls_.find(id_key(envelope.id));
  if (call == calls_.end()) return;  // late, or the end of a subscription
  const std::string_view result = member_of(text, "result");
  if (string_member_of(result, "resultType") == "input_required") return ask(call, result, lines);
  std::string message = id_key(call->second.id) == call->first
                            ? std::string(text)
                            : with_id(text, envelope.id, call->second.id);
  lines.to_client.push_back({std::move(message), call->second.id});
  calls_.erase(call);
}

void StatelessChild::ask(std::map<std::string, Call>::iterator call, std::string_view result,
                         Lines& lines) {
  Call& asking = call->second;
  asking.answers.clear();
  asking.request_state = member_of(result, "requestState");
  const auto requests = object_members(member_of(result, "inputRequests"));
  if (++asking.round > kMaxRounds || questions_.size() > kMaxOpen) {
    lines.to_client.push_back(
        {error_message(asking.id, kInternalError, "the server asks and asks"), asking.id});
    calls_.erase(call);
    return;
  }
  if (!requests || requests->empty()) return retry(call, lines);
  for (const JsonMember& request : *requests) {
    // A client may show or match ids: the server's own name for the question, as long as it is
    // free.
    std::string id = quote_json(request.key);
    if (questions_.count(id_key(id)) != 0) {
      id = quote_json(fmt::format("{}-{}", request.key, next_++));
    }
    const std::string method = string_member_of(request.value, "method").value_or("");
    questions_[id_key(id)] = {call->first, request.key, method};
    asking.open.insert(id_key(id));
    const std::string_view params = member_of(request.value, "params");
    lines.to_client.push_back({fmt::format(R"({{"jsonrpc":"2.0","id":{},"method":{},"params":{}}})",
                                           id, quote_json(method), params.empty() ? "{}" : params),
                               asking.id});
  }
}

void StatelessChild::handle_answer(std::string_view text, const Envelope& envelope, Lines& lines) {
  const auto found = questions_.find(id_key(envelope.id));
  if (found == questions_.end()) return;
  const Question question = std::move(found->second);
  questions_.erase(found);
  const auto call = calls_.find(question.call);
  if (call == calls_.end()) return;
  call->second.open.erase(id_key(envelope.id));
  if (!envelope.is_error) {
    call->second.answers[question.key] = member_of(text, "result");
  } else if (question.method == "elicitation/create") {
    call->second.answers[question.key] = R"({"action":"cancel"})";
  }
  // What the client could not answer otherwise is left out: the server asks again, or gives up.
  if (call->second.open.empty()) retry(call, lines);
}

void StatelessChild::retry(std::map<std::string, Call>::iterator call, Lines& lines) {
  Call again = std::move(call->second);
  calls_.erase(call);
  ObjectEdit responses;
  responses.set = again.answers;
  ObjectEdit params;
  params.set["inputResponses"] = edit_object("{}", responses);
  if (!again.request_state.empty()) params.set["requestState"] = again.request_state;
  const std::string id = fmt::format("\"agent-vm-retry-{}\"", next_++);
  ObjectEdit edit;
  edit.set["id"] = id;
  edit.set["params"] = with_metadata(edit_object(member_of(again.line, "params"), params));
  lines.to_server.push_back(edit_object(again.line, edit));
  calls_[id_key(id)] = std::move(again);
}

void StatelessChild::cancel(const Envelope& envelope, Lines& lines) {
  const std::string key = id_key(envelope.request_id);
  const auto call = std::find_if(calls_.begin(), calls_.end(),
                                 [&](const auto& entry) { return id_key(entry.second.id) == key; });
  if (call == calls_.end()) return;
  const std::string wire = call->first;
  lines.to_server.push_back(fmt::format(
      R"({{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{}}}}})",
      wire.front() == 's' ? quote_json(std::string_view(wire).substr(1)) : wire.substr(1)));
  for (const std::string& question : call->second.open) questions_.erase(question);
  calls_.erase(call);
}

}  // namespace agent_vm::mcp

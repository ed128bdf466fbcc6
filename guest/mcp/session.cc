#include "mcp/session.h"

#include <fmt/format.h>

#include <algorithm>

#include "mcp/json_object.h"

namespace agent_vm::mcp {
namespace {

constexpr std::string_view kInitializedNotification =
    R"({"jsonrpc":"2.0","method":"notifications/initialized"})";
constexpr std::size_t kMaxSubscriptions = 1024;
// A client that never lets go of its requests must not fill the gateway.
constexpr std::size_t kMaxInFlight = 1024;
constexpr std::size_t kMaxCancelled = 4096;
constexpr std::size_t kMaxAsked = 1024;
// Finished streams that a client may still resume.
constexpr std::size_t kMaxRetired = 16;
constexpr std::size_t kMaxRetiredBytes = 8U << 20;

// What a server process keeps in mind for its client, and a new one has to be told again.
bool is_lasting(std::string_view method) {
  return method == "logging/setLevel" || method == "resources/subscribe" ||
         method == "resources/unsubscribe";
}

}  // namespace

Session::Session(std::string id, std::string server, bool one_stream, EventStream::Limits limits)
    : ServerSide(limits), one_stream_(one_stream) {
  record_.id = std::move(id);
  record_.server = std::move(server);
  streams_.emplace(kStandaloneStream, EventStream(kStandaloneStream, limits_));
}

Session::Session(SessionRecord record, EventStream::Limits limits)
    : ServerSide(limits), record_(std::move(record)), one_stream_(false) {
  streams_.emplace(kStandaloneStream, EventStream(kStandaloneStream, limits_));
}

bool Session::batches_allowed() const {
  return record_.protocol_version == "2025-03-26";
}

tl::expected<Session::Accepted, Refusal> Session::post(std::string_view body) {
  const auto texts = split_body(body, batches_allowed());
  if (!texts) return tl::unexpected(Refusal{400, texts.error()});

  // All of a batch is checked before any of it has an effect.
  std::vector<Envelope> envelopes;
  for (const std::string_view text : *texts) {
    auto envelope = parse_message(text);
    if (!envelope) return tl::unexpected(Refusal{400, std::move(envelope).error()});
    envelopes.push_back(std::move(*envelope));
  }
  std::set<std::string> ids;
  for (const Envelope& envelope : envelopes) {
    if (envelope.kind != MessageKind::kRequest) continue;
    if (!ids.insert(id_key(envelope.id)).second) {
      return tl::unexpected(refuse(kInvalidRequest, "two requests of a batch have the same id"));
    }
  }

  Accepted accepted;
  accepted.is_batch = texts->size() > 1 || texts->front().data() != body.data();
  for (std::size_t i = 0; i < envelopes.size(); ++i) {
    if (auto done = accept((*texts)[i], envelopes[i], accepted); !done) {
      // What the first messages of a batch registered would wait for ever.
      if (accepted.stream && !one_stream_) {
        std::erase_if(pending_, [&](const auto& p) { return p.second.stream == *accepted.stream; });
        drop_stream(*accepted.stream);
      }
      return tl::unexpected(std::move(done).error());
    }
  }
  for (std::string& line : accepted.to_server) to_one_line(line);
  return accepted;
}

tl::expected<void, Refusal> Session::accept(std::string_view text, const Envelope& envelope,
                                            Accepted& accepted) {
  switch (envelope.kind) {
    case MessageKind::kRequest:
      return accept_request(text, envelope, accepted);
    case MessageKind::kNotification:
      if (envelope.method == "notifications/cancelled") {
        accept_cancel(text, envelope, accepted);
        return {};
      }
      if (envelope.method == "notifications/initialized") {
        accepted.record_changed = record_.initialized.empty();
        record_.initialized = text;
      }
      accepted.to_server.emplace_back(text);
      return {};
    case MessageKind::kResponse: {
      // Only to a question that this server process asked: an answer to its predecessor, or to
      // another session's server, would be taken for one to a new question with the same id.
      const auto asked = asked_.find(id_key(envelope.id));
      if (asked == asked_.end()) return {};
      asked_.erase(asked);
      accepted.to_server.emplace_back(text);
      return {};
    }
  }
  return {};
}

tl::expected<void, Refusal> Session::accept_request(std::string_view text, const Envelope& envelope,
                                                    Accepted& accepted) {
  const bool initialize = envelope.method == "initialize";
  if (initialize && (established() || initialize_in_flight_)) {
    return tl::unexpected(
        refuse(kInvalidRequest, "this session is initialized already", envelope.id));
  }
  if (!initialize && !established()) {
    return tl::unexpected(
        refuse(kInvalidRequest, "the first request of a session must be initialize", envelope.id));
  }
  if (pending_.size() >= kMaxInFlight) {
    return tl::unexpected(refuse(kInvalidRequest,
                                 fmt::format("{} requests are in flight already", kMaxInFlight),
                                 envelope.id, 429));
  }
  const std::string key = id_key(envelope.id);
  const bool taken = std::any_of(pending_.begin(), pending_.end(),
                                 [&](const auto& entry) { return id_key(entry.second.id) == key; });
  if (taken) {
    return tl::unexpected(
        refuse(kInvalidRequest, "a request with this id is in flight already", envelope.id));
  }

  if (!accepted.stream) {
    accepted.stream = one_stream_ ? kStandaloneStream : open_stream().id();
  }
  Pending pending;
  pending.id = envelope.id;
  pending.stream = *accepted.stream;
  if (!envelope.progress_token.empty()) pending.token = id_key(envelope.progress_token);
  pending.initialize = initialize;
  pending.order = next_order_++;
  if (is_lasting(envelope.method)) {
    pending.method = envelope.method;
    pending.params = member_of(text, "params");
  }
  if (initialize) {
    record_.initialize = text;
    to_one_line(record_.initialize);
    initialize_in_flight_ = true;
  }

  if (id_is_portable(envelope.id) && cancelled_.count(key) == 0) {
    pending_.emplace(key, std::move(pending));
    accepted.to_server.emplace_back(text);
  } else {
    const std::string alias = fmt::format("\"agent-vm-{}\"", pending.order);
    pending_.emplace(id_key(alias), std::move(pending));
    accepted.to_server.push_back(with_id(text, envelope.id, alias));
  }
  return {};
}

void Session::accept_cancel(std::string_view text, const Envelope& envelope, Accepted& accepted) {
  const std::string key = id_key(envelope.request_id);
  const auto found = std::find_if(pending_.begin(), pending_.end(), [&](const auto& entry) {
    return id_key(entry.second.id) == key;
  });
  // Too late, twice, or never asked: cancelling is idempotent. `initialize` cannot be cancelled.
  if (found == pending_.end() || found->second.initialize) return;
  const std::string wire = found->first;
  const std::string raw_wire =
      wire.front() == 's' ? quote_json(std::string_view(wire).substr(1)) : wire.substr(1);
  accepted.to_server.push_back(wire == key ? std::string(text)
                                           : with_id(text, envelope.request_id, raw_wire));
  if (cancelled_.size() < kMaxCancelled) cancelled_.insert(wire);
  settle(found, accepted.touched);
}

std::vector<std::string> Session::server_started() {
  ++generation_;
  if (!established()) {
    server_ready_ = true;  // for the initialize that is about to be posted
    return {};
  }
  replay_id_ = fmt::format("\"agent-vm-replay-{}\"", generation_);
  const auto envelope = parse_message(record_.initialize);
  if (!envelope) return {};  // cannot be: it was parsed when it came
  return {with_id(record_.initialize, envelope->id, replay_id_)};
}

Session::FromServer Session::server_line(std::string_view line, std::string_view about) {
  FromServer effects;
  const auto texts = split_body(line, batches_allowed());
  if (!texts) {
    effects.junk = true;
    return effects;
  }
  for (const std::string_view text : *texts) handle_line(text, about, effects);
  return effects;
}

void Session::handle_line(std::string_view text, std::string_view about, FromServer& effects) {
  const auto envelope = parse_message(text);
  if (!envelope) {
    effects.junk = true;
    return;
  }
  if (envelope->kind == MessageKind::kResponse) {
    handle_response(text, *envelope, effects);
    return;
  }
  StreamId stream = route(*envelope, about);
  if (envelope->kind == MessageKind::kRequest) {
    if (asked_.size() >= kMaxAsked) {
      effects.junk = true;
      return;
    }
    asked_[id_key(envelope->id)] = stream;
  } else if (envelope->method == "notifications/cancelled") {
    // It follows the question that it takes back.
    const auto asked = asked_.find(id_key(envelope->request_id));
    if (asked != asked_.end()) {
      if (streams_.count(asked->second) != 0) stream = asked->second;
      asked_.erase(asked);
    }
  }
  push(stream, std::string(text), effects.touched);
}

void Session::handle_response(std::string_view text, const Envelope& envelope,
                              FromServer& effects) {
  const std::string key = id_key(envelope.id);
  if (!replay_id_.empty() && key == id_key(replay_id_)) {
    handle_replay_response(envelope, effects);
    return;
  }
  const auto found = pending_.find(key);
  if (found == pending_.end()) {
    // The late answer to a cancelled request is expected; anything else answers nothing.
    effects.junk = cancelled_.erase(key) + own_.erase(key) == 0;
    return;
  }
  const Pending& pending = found->second;
  if (pending.initialize) {
    initialize_in_flight_ = false;
    if (!envelope.is_error) {
      record_.protocol_version =
          envelope.protocol_version.empty() ? "2025-03-26" : envelope.protocol_version;
      effects.established = true;
    }
  }
  if (!envelope.is_error) remember(pending, effects);
  std::string message =
      key == id_key(pending.id) ? std::string(text) : with_id(text, envelope.id, pending.id);
  push(pending.stream, std::move(message), effects.touched);
  settle(found, effects.touched);
}

void Session::handle_replay_response(const Envelope& envelope, FromServer& effects) {
  replay_id_.clear();
  if (envelope.is_error) {
    effects.handshake_failure = "it refused the repeated initialize";
    return;
  }
  if (envelope.protocol_version != record_.protocol_version) {
    effects.handshake_failure =
        fmt::format("it now speaks protocol version {}, and spoke {} before",
                    envelope.protocol_version, record_.protocol_version);
    return;
  }
  if (!record_.initialized.empty()) effects.to_server.emplace_back(kInitializedNotification);
  for (std::string& line : replay_state()) effects.to_server.push_back(std::move(line));
  server_ready_ = true;
  effects.became_ready = true;
}

void Session::remember(const Pending& pending, FromServer& effects) {
  if (pending.method.empty()) return;
  const std::string uri = string_member_of(pending.params, "uri").value_or("");
  if (pending.method == "logging/setLevel") {
    record_.log_level = pending.params;
  } else if (pending.method == "resources/unsubscribe") {
    record_.subscriptions.erase(uri);
  } else if (record_.subscriptions.size() < kMaxSubscriptions) {
    record_.subscriptions.insert(uri);
  }
  effects.established = true;
}

std::vector<std::string> Session::replay_state() {
  std::vector<std::string> lines;
  const auto add = [&](std::string_view method, std::string_view params) {
    const std::string id =
        quote_json(fmt::format("agent-vm-replay-{}-{}", generation_, lines.size() + 1));
    own_.insert(id_key(id));
    lines.push_back(fmt::format(R"({{"jsonrpc":"2.0","id":{},"method":"{}","params":{}}})", id,
                                method, params));
    to_one_line(lines.back());
  };
  if (!record_.log_level.empty()) add("logging/setLevel", record_.log_level);
  for (const std::string& uri : record_.subscriptions) {
    add("resources/subscribe", fmt::format(R"({{"uri":{}}})", quote_json(uri)));
  }
  return lines;
}

std::vector<StreamId> Session::server_lost(std::string_view reason) {
  std::vector<StreamId> touched;
  server_ready_ = false;
  replay_id_.clear();
  initialize_in_flight_ = false;
  // Questions of the lost process will get no answer that anybody waits for.
  for (const auto& [key, stream] : asked_) {
    const std::string raw =
        key.front() == 's' ? quote_json(std::string_view(key).substr(1)) : key.substr(1);
    push(streams_.count(stream) != 0 ? stream : kStandaloneStream,
         fmt::format(R"({{"jsonrpc":"2.0","method":"notifications/cancelled","params":)"
                     R"({{"requestId":{},"reason":"the server went away"}}}})",
                     raw),
         touched);
  }
  asked_.clear();
  cancelled_.clear();
  own_.clear();
  while (!pending_.empty()) {
    const auto first = pending_.begin();
    push(first->second.stream, error_message(first->second.id, kServerUnavailable, reason),
         touched);
    settle(first, touched);
  }
  return touched;
}

void Session::settle(std::map<std::string, Pending>::iterator pending,
                     std::vector<StreamId>& touched) {
  const StreamId id = pending->second.stream;
  pending_.erase(pending);
  const bool more = std::any_of(pending_.begin(), pending_.end(),
                                [&](const auto& entry) { return entry.second.stream == id; });
  if (more || id == kStandaloneStream) return;
  finish(id, touched);
}

StreamId Session::route(const Envelope& envelope, std::string_view about) {
  if (one_stream_) return kStandaloneStream;
  if (!about.empty()) {
    const auto known = pending_.find(id_key(about));
    if (known != pending_.end() && streams_.count(known->second.stream) != 0) {
      return known->second.stream;
    }
  }
  if (envelope.method == "notifications/progress" && !envelope.progress_of.empty()) {
    const std::string token = id_key(envelope.progress_of);
    for (const auto& [key, pending] : pending_) {
      if (pending.token == token && streams_.count(pending.stream) != 0) return pending.stream;
    }
  }
  const Pending* oldest = nullptr;
  for (const auto& [key, pending] : pending_) {
    if (streams_.count(pending.stream) == 0) continue;
    if (oldest == nullptr || pending.order < oldest->order) oldest = &pending;
  }
  if (oldest != nullptr && pending_.size() == 1) return oldest->stream;
  if (streams_.at(kStandaloneStream).attached() || oldest == nullptr) return kStandaloneStream;
  return oldest->stream;
}

void Session::drop_stream(StreamId id) {
  if (id != kStandaloneStream) streams_.erase(id);
}

void Session::retire_stream(StreamId id) {
  if (id == kStandaloneStream || streams_.count(id) == 0) return;
  std::erase(retired_, id);
  retired_.push_back(id);
  std::size_t bytes = 0;
  for (const StreamId kept : retired_) {
    if (const EventStream* stream_kept = stream(kept)) bytes += stream_kept->kept_bytes();
  }
  while (retired_.size() > 1 && (retired_.size() > kMaxRetired || bytes > kMaxRetiredBytes)) {
    if (const EventStream* oldest = stream(retired_.front())) bytes -= oldest->kept_bytes();
    drop_stream(retired_.front());
    retired_.pop_front();
  }
}

}  // namespace agent_vm::mcp

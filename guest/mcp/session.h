// One client's session with one server (protocol revisions up to 2025-11-25).
//
// Theory of operation. The session sits between a client that speaks Streamable HTTP and a server
// that speaks lines, and decides three things only: may this message pass, on which stream does
// that one belong, and what has to be said when the server goes away. Messages in, messages out: it
// owns no socket, no process and no clock, and it never rewrites a message, with one exception: an
// id that the server would not give back faithfully, or that is still taken by a cancelled request,
// travels under an alias.
//
// A server process belongs to one session (see gateway/live_session.h for why), so the ids that the
// client and the server choose cannot meet those of another session.
//
// Which stream: a response goes to the stream of its request; progress to the stream of the request
// whose token it carries; anything else that the server says (logging, sampling, elicitation, list
// changes) to the stream of the only request in flight, because it is then most likely about it;
// otherwise to the standalone stream when a GET has it open, otherwise to the oldest request in
// flight that can carry it, otherwise it waits, bounded, for a GET.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "mcp/server_side.h"

namespace agent_vm::mcp {

// What a session needs to live on after its gateway was restarted.
struct SessionRecord {
  std::string id;
  std::string server;
  std::string protocol_version;         // as the server answered it
  std::string initialize;               // the client's request, as it was sent
  std::string initialized;              // the client's notification; empty before it came
  std::string log_level;                // raw params of the last logging/setLevel; empty without
  std::set<std::string> subscriptions;  // uris of resources/subscribe
};

class Session : public ServerSide {
 public:
  // `one_stream`: the transport of 2024-11-05, where everything travels on the GET stream.
  Session(std::string id, std::string server, bool one_stream = false,
          EventStream::Limits limits = {});
  // A session of an earlier gateway; server_started() replays its handshake.
  explicit Session(SessionRecord record, EventStream::Limits limits = {});

  const std::string& id() const { return record_.id; }
  const std::string& server() const { return record_.server; }
  const SessionRecord& record() const { return record_; }
  struct Accepted {
    std::optional<StreamId> stream;      // where the responses will come; nothing: 202
    std::vector<std::string> to_server;  // lines without their terminator
    bool is_batch = false;
    std::vector<StreamId> touched;  // streams of cancelled requests, now finished
    bool record_changed = false;
  };
  // A client's POST. Call it only while server_ready(), or for `initialize`.
  tl::expected<Accepted, Refusal> post(std::string_view body);

  // Repeats the session's handshake, after a restart.
  std::vector<std::string> server_started() override;
  bool server_ready() const override { return server_ready_; }
  // The handshake is done, so that the session can outlive its server process.
  bool established() const override { return !record_.protocol_version.empty(); }
  bool wants_server() const override { return established(); }
  FromServer server_line(std::string_view line, std::string_view about = {}) override;
  std::vector<StreamId> server_lost(std::string_view reason) override;
  std::size_t in_flight() const override { return pending_.size(); }

  void drop_stream(StreamId id) override;
  // A finished stream was handed to a connection that may yet turn out to be broken: the last few
  // are kept for a client that resumes them.
  void retire_stream(StreamId id);

 private:
  struct Pending {
    std::string id;  // raw, as the client wrote it
    StreamId stream = 0;
    std::string token;  // key of its progress token, or empty
    bool initialize = false;
    std::string method;  // and params: of a request whose effect a new process must get again
    std::string params;
    std::uint64_t order = 0;
  };

  tl::expected<void, Refusal> accept(std::string_view text, const Envelope& envelope,
                                     Accepted& accepted);
  tl::expected<void, Refusal> accept_request(std::string_view text, const Envelope& envelope,
                                             Accepted& accepted);
  void accept_cancel(std::string_view text, const Envelope& envelope, Accepted& accepted);
  void handle_line(std::string_view text, std::string_view about, FromServer& effects);
  void handle_response(std::string_view text, const Envelope& envelope, FromServer& effects);
  void handle_replay_response(const Envelope& envelope, FromServer& effects);
  StreamId route(const Envelope& envelope, std::string_view about);
  void remember(const Pending& pending, FromServer& effects);
  std::vector<std::string> replay_state();
  void settle(std::map<std::string, Pending>::iterator pending, std::vector<StreamId>& touched);
  bool batches_allowed() const;

  SessionRecord record_;
  bool one_stream_;
  bool server_ready_ = false;
  bool initialize_in_flight_ = false;
  std::string replay_id_;  // raw id of the replayed initialize; empty when none is under way
  std::uint64_t generation_ = 0;
  std::uint64_t next_order_ = 1;
  std::map<std::string, Pending> pending_;  // by the key of the id on the wire
  std::set<std::string> own_;               // our own requests, whose answers nobody waits for
  std::set<std::string> cancelled_;         // wire ids the server may still answer
  std::map<std::string, StreamId> asked_;   // the server's own requests to the client
  std::deque<StreamId> retired_;            // oldest first
};

}  // namespace agent_vm::mcp

// One process of a server that speaks an earlier revision, behind clients of 2026-07-28.
//
// Theory of operation. Those clients have no sessions: each request stands for itself, and names
// the client's capabilities. The process was initialised once, with exactly these capabilities, so
// that only requests that declare the same ones come to the same process; and what was said in the
// handshake answers server/discover. Requests travel under ids and progress tokens of our own,
// because many clients choose the same. Otherwise their bytes stay as they are.
//
// A server of an earlier revision asks its client by a request of its own (sampling, elicitation,
// roots). Here that becomes an interim result, "input_required": the HTTP response ends, the call
// stays in flight at the server ("parked"), and the client's retry, which proves by its signed
// requestState that it belongs to the call, brings the answers. Answers that a client sends along
// without being asked are kept for the question of that name.
//
// Whose question is it? The protocol of stdio does not say. With one call in flight it is that
// call's. With several, the question is held until all but one have ended, and refused when that
// takes long. With a cancelled call that never answered, it may be that one's: then the question is
// refused, and the process takes no more calls that could be asked something (tainted()). A parked
// call keeps such calls away too (parked()). So no client ever sees a question that another's call
// led to. Of a server that was seen asking, the caller gives each such call a process without
// another one (busy()); others share one process, and with it the state that servers keep.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "mcp/param_headers.h"
#include "mcp/request_state.h"
#include "mcp/server_side.h"
#include "mcp/stateless_request.h"

namespace agent_vm::mcp {

// What was learnt about a server, from any of its processes.
struct ServerKnowledge {
  ParamHeaders param_headers;
  bool asks = false;  // its clients, while it works on their calls
};

class SharedServer : public ServerSide {
 public:
  // `number` names this server in request states; `capabilities` (raw) are what its clients
  // declare. `knowledge` is common to the processes of one server. The signer must outlive it.
  SharedServer(std::uint64_t number, std::string capabilities, std::string client_info,
               const StateSigner& signer, std::shared_ptr<ServerKnowledge> knowledge,
               EventStream::Limits limits = {});

  std::uint64_t number() const { return number_; }
  const std::string& capabilities() const { return capabilities_; }

  struct Accepted {
    StreamId stream = 0;
    std::vector<std::string> to_server;
  };
  // Call it only while server_ready(). `now`: seconds, as for the signer.
  tl::expected<Accepted, Refusal> request(const StatelessRequest& request, std::int64_t now);
  // The client went away: that is how this revision cancels. Lines for the server.
  std::vector<std::string> cancel(StreamId stream);

  // The server has asked something that the request's client must answer before it goes on.
  bool input_wanted(StreamId stream) const;
  // Ends the stream with what is asked. Wait a moment first: servers ask several things at once.
  std::vector<StreamId> conclude_with_input(StreamId stream, std::int64_t now);

  // Gives up parked calls whose state has expired and questions that were held for long. Lines for
  // the server.
  std::vector<std::string> sweep(std::int64_t now);

  bool parked() const;
  bool busy() const;  // with a call whose client could be asked something
  bool tainted() const { return tainted_; }

  std::vector<std::string> server_started() override;
  bool server_ready() const override { return ready_; }
  bool established() const override { return !handshake_.empty(); }
  bool wants_server() const override { return !listeners_.empty(); }
  FromServer server_line(std::string_view line, std::string_view about = {}) override;
  std::vector<StreamId> server_lost(std::string_view reason) override;
  std::size_t in_flight() const override { return calls_.size(); }

 private:
  struct Question {
    std::string id;  // raw, as the server wrote it
    std::string method;
    std::string params;
  };
  struct Call {
    std::string id;  // raw, of the client's request that waits now
    std::string method;
    std::string name;
    std::string digest;
    std::string token;  // raw, the client's
    std::string log_level;
    bool interactive = false;
    StreamId stream = 0;                         // 0: parked
    std::map<std::string, Question> questions;   // by their key in inputRequests
    std::map<std::string, std::string> answers;  // that came before their question
    std::uint64_t round = 0;
    std::int64_t expires = 0;
    std::string result;  // the server's answer to a parked call
  };
  struct Listener {
    std::string id;               // raw
    std::set<std::string> kinds;  // "tools", "prompts", "resources"
    std::set<std::string> uris;
  };
  struct Held {
    std::string line;
    std::int64_t since = 0;  // 0: not swept yet
  };
  using Calls = std::map<std::uint64_t, Call>;

  Accepted discover(const StatelessRequest& request);
  Accepted listen(const StatelessRequest& request);
  tl::expected<Accepted, Refusal> retry(const StatelessRequest& request, std::int64_t now);
  tl::expected<Accepted, Refusal> forward(const StatelessRequest& request);
  void set_log_level(const std::string& wanted, std::vector<std::string>& to_server);

  void handle_line(std::string_view text, std::string_view about, FromServer& effects);
  void handle_handshake(std::string_view text, const Envelope& envelope, FromServer& effects);
  void handle_response(std::string_view text, const Envelope& envelope, FromServer& effects);
  void handle_request(std::string_view text, const Envelope& envelope, std::string_view about,
                      FromServer& effects);
  void handle_notification(std::string_view text, const Envelope& envelope, std::string_view about,
                           FromServer& effects);
  void handle_change(std::string_view text, const Envelope& envelope, FromServer& effects);
  void ask(Calls::iterator call, std::string_view text, const Envelope& envelope,
           FromServer& effects);
  void refuse_undeclared(Calls::iterator call, const Envelope& envelope, std::string_view params,
                         FromServer& effects);
  void ask_held(FromServer& effects);
  void answer_client(Calls::iterator call, std::string message, FromServer& effects);
  std::string translate_result(const Call& call, std::string_view result) const;
  std::string translate_error(const Call& call, std::string_view error) const;
  std::string translate_url_error(const Call& call, std::string_view error) const;

  // The call that a line without a token belongs to, if that is certain.
  Calls::iterator owner(std::string_view about, bool of_question);
  Calls::iterator call_of(StreamId stream);
  std::string subscribe(std::string_view verb, const std::string& uri);

  std::uint64_t number_;
  std::string capabilities_;
  std::string client_info_;
  const StateSigner& signer_;

  bool ready_ = false;
  bool tainted_ = false;
  std::string handshake_;  // raw result of initialize
  std::string log_level_;  // what the server was told last
  std::uint64_t next_id_ = 1;
  Calls calls_;                     // by the id on the wire
  std::set<std::uint64_t> ghosts_;  // cancelled at the server, not answered yet
  std::set<std::uint64_t> own_;     // our own requests, whose answers nobody waits for
  std::map<StreamId, Listener> listeners_;
  std::vector<Held> held_;
  std::shared_ptr<ServerKnowledge> knowledge_;
};

}  // namespace agent_vm::mcp

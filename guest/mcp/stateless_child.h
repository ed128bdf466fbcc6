// Between the gateway, which talks to servers in the way of 2025-11-25, and a server process that
// may know only 2026-07-28.
//
// Theory of operation. The handshake is offered first: a server of an earlier revision, or of both,
// takes it, and from then on nothing is looked at here. A server that refuses it is asked
// server/discover; when it answers that, every request gets the metadata that it wants ("who, with
// which capabilities, in which revision"), and each of its interim results becomes the requests
// that it stands for, whose answers go back with a repetition of the call. A server that knows
// neither gets its refusal passed on.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "mcp/message.h"

namespace agent_vm::mcp {

class StatelessChild {
 public:
  struct ToClient {
    std::string text;
    std::string about;  // raw id of the request that it belongs to, or empty
  };
  struct Lines {
    std::vector<std::string> to_server;
    std::vector<ToClient> to_client;
  };
  // Nothing is to be translated: lines may go past this object.
  bool transparent() const { return state_ == State::kTransparent; }
  Lines from_client(std::string line);
  Lines from_server(std::string_view line);

 private:
  enum class State { kWaiting, kOffered, kDiscovering, kTransparent, kTranslating };
  struct Call {
    std::string id;    // raw, the client's
    std::string line;  // as the client sent it
    std::size_t round = 0;
    std::string request_state;                   // raw
    std::map<std::string, std::string> answers;  // raw, by their key
    std::set<std::string> open;                  // questions by id_key
  };
  struct Question {
    std::string call;  // wire id key
    std::string key;
    std::string method;
  };

  void discover(Lines& lines);
  void handle_discovery(std::string_view text, const Envelope& envelope, Lines& lines);
  void handle_request(std::string line, const Envelope& envelope, Lines& lines);
  void handle_answer(std::string_view text, const Envelope& envelope, Lines& lines);
  void handle_result(std::string_view text, const Envelope& envelope, Lines& lines);
  void ask(std::map<std::string, Call>::iterator call, std::string_view result, Lines& lines);
  void retry(std::map<std::string, Call>::iterator call, Lines& lines);
  void cancel(const Envelope& envelope, Lines& lines);
  void listen(Lines& lines);
  std::string with_metadata(std::string_view params) const;

  State state_ = State::kWaiting;
  std::string initialize_;    // the client's request
  std::string refusal_;       // the server's answer to it
  std::string capabilities_;  // the server's, raw
  std::string log_level_;
  std::set<std::string> uris_;
  std::string listening_;  // raw id of the subscription; empty without
  std::uint64_t next_ = 1;
  std::map<std::string, Call> calls_;          // by the key of the id on the wire
  std::map<std::string, Question> questions_;  // by the key of their id
};

}  // namespace agent_vm::mcp

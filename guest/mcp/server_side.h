// What the process behind a server talks to: a client's session (session.h), or the calls of all
// clients that keep no session (shared_server.h). Messages in, messages out; no socket, no clock.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "mcp/event_stream.h"
#include "mcp/message.h"

namespace agent_vm::mcp {

// Why a POST is refused: an HTTP status and a JSON-RPC error as its body.
struct Refusal {
  int status = 400;
  MessageError error;
};
Refusal refuse(int code, std::string message, std::string_view id = "null", int status = 400);

class ServerSide {
 public:
  struct FromServer {
    std::vector<std::string> to_server;
    std::vector<StreamId> touched;  // streams that got a message or ended
    bool junk = false;              // not a message, or an answer to nothing: dropped
    bool became_ready = false;      // a handshake that the gateway made is complete
    std::string handshake_failure;  // or why it failed
    bool established = false;       // the record changed: worth saving
  };

  explicit ServerSide(EventStream::Limits limits) : limits_(limits) {}
  virtual ~ServerSide() = default;
  ServerSide(const ServerSide&) = delete;
  ServerSide& operator=(const ServerSide&) = delete;
  ServerSide(ServerSide&&) = default;
  ServerSide& operator=(ServerSide&&) = default;

  // A server process is there: what to send first.
  virtual std::vector<std::string> server_started() = 0;
  // The server answers requests.
  virtual bool server_ready() const = 0;
  // The handshake was done once.
  virtual bool established() const = 0;
  // A lost server is to be started again at once, not when it is used.
  virtual bool wants_server() const = 0;
  // `about`: the raw id of the request that the line belongs to, where something knows it.
  virtual FromServer server_line(std::string_view line, std::string_view about) = 0;
  // The server process is gone: every request in flight is answered with an error, at once and
  // only once, and is not repeated. Returns the touched streams.
  virtual std::vector<StreamId> server_lost(std::string_view reason) = 0;
  virtual std::size_t in_flight() const = 0;

  // Null when there is no such stream (any more).
  EventStream* stream(StreamId id);
  // A stream that can never be resumed: forget it. What still comes for it is dropped.
  virtual void drop_stream(StreamId id) { streams_.erase(id); }
  std::size_t pending_bytes() const;
  bool has_attached_stream() const;

 protected:
  EventStream& open_stream();
  void push(StreamId id, std::string message, std::vector<StreamId>& touched);
  void finish(StreamId id, std::vector<StreamId>& touched);

  EventStream::Limits limits_;
  StreamId next_stream_ = 1;
  std::map<StreamId, EventStream> streams_;
};

}  // namespace agent_vm::mcp

// qemu-guest-agent: the supervisor's way into the guest. Every reply is the guest's word, hence
// input: limited in size, checked against the shape that is due, never trusted further (S24).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qmp/json_stream.h"

namespace agent_vm {

struct GuestCommandResult {
  int exit_code = -1;
  int signal = 0;
  std::string out;  // bytes of the guest, at most 1 MiB or so
  std::string error;
};

class GuestAgent {
 public:
  // `bell`: what a program of the guest writes to when it has ended; the bytes mean nothing.
  GuestAgent(asio::io_context& io, Fd socket, Fd bell);
  ~GuestAgent();
  GuestAgent(const GuestAgent&) = delete;
  GuestAgent& operator=(const GuestAgent&) = delete;

  // Agrees with the agent on where its next reply starts. Needed once after it opened its port and
  // after a reply that did not come in time; done as needed by the calls below.
  Task<Status> synchronise(Deadline deadline);

  // Runs a program in the guest, as root, to its end. The agent tells nobody of that end, so it is
  // asked for: when the bell rings, and now and then for programs that do not ring it. Each
  // question costs the guest a line in its journal.
  Task<Result<GuestCommandResult>> run(std::string path, std::vector<std::string> arguments,
                                       std::string input, Deadline deadline);
  // Of /bin/sh; rings.
  Task<Result<GuestCommandResult>> run_script(std::string_view script, std::string input,
                                              Deadline deadline);

  // Asks the guest to power off. Succeeds when the request has been sent; there is no answer to it.
  Task<Status> power_down();

  // The agent in the guest went away or came back: what it was asked before is forgotten.
  void restarted() { synchronised_ = false; }

  void close();

 private:
  Task<Result<nlohmann::json>> call(std::string command, nlohmann::json arguments,
                                    Deadline deadline);
  Task<Result<std::string>> read_line(Deadline deadline);

  struct Bell;
  static Task<void> hear(std::shared_ptr<Bell> bell);

  // The protocol has no ids, so one exchange at a time.
  class Turn;

  asio::io_context& io_;
  std::shared_ptr<JsonStream> stream_;
  std::shared_ptr<Bell> bell_;
  struct Reading {
    Event done;
    std::optional<Result<std::string>> line;
  };
  static Task<void> read_into(std::shared_ptr<JsonStream> stream, std::shared_ptr<Reading> reading);

  bool synchronised_ = false;
  std::shared_ptr<Reading> reading_;  // the one read that is under way
  std::shared_ptr<Event> turn_;       // set when the exchange that is under way has ended
};

}  // namespace agent_vm

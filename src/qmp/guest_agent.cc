#include "qmp/guest_agent.h"

#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>
#include <optional>

#include "base/log.h"
#include "base/text.h"
#include "os/random.h"

namespace agent_vm {

using nlohmann::json;
using std::chrono::milliseconds;

namespace {

constexpr std::size_t kMaxLine = 4U << 20U;
constexpr std::size_t kMaxOutput = 1U << 20U;
constexpr milliseconds kFirstPause{5};
constexpr milliseconds kLongestPause{500};
constexpr const char* kRing = "trap 'echo > /dev/virtio-ports/agent-vm.bell.0' EXIT\n";

// The integer `name` of `object`, or an error: the guest decides what it sends.
Result<std::int64_t> integer(const json& object, const char* name) {
  if (!object.is_object() || !object.contains(name) || !object[name].is_number_integer()) {
    return fail("the guest agent's reply has no integer '{}'", name);
  }
  return object[name].get<std::int64_t>();
}

Result<std::string> data_of(const json& object, const char* name) {
  if (!object.contains(name)) return std::string();
  if (!object[name].is_string()) return fail("the guest agent's '{}' is not a string", name);
  std::string bytes = TRY(base64_decode(object[name].get_ref<const std::string&>()));
  if (bytes.size() > kMaxOutput) bytes.resize(kMaxOutput);
  return bytes;
}

Result<GuestCommandResult> to_result(const json& status) {
  GuestCommandResult result;
  if (status.contains("exitcode"))
    result.exit_code = static_cast<int>(TRY(integer(status, "exitcode")));
  if (status.contains("signal")) result.signal = static_cast<int>(TRY(integer(status, "signal")));
  result.out = TRY(data_of(status, "out-data"));
  result.error = TRY(data_of(status, "err-data"));
  return result;
}

}  // namespace

// Holds the agent's line for one exchange; others wait their turn.
class GuestAgent::Turn {
 public:
  static Task<Result<std::shared_ptr<Turn>>> take(GuestAgent& agent, Deadline deadline) {
    while (agent.turn_) {
      const auto current = agent.turn_;
      if (!co_await current->wait(deadline)) {
        CO_FAIL(ErrorKind::kTimeout, "the guest agent was busy until the deadline");
      }
    }
    co_return std::make_shared<Turn>(agent);
  }
  explicit Turn(GuestAgent& agent) : agent_(agent) { agent_.turn_ = std::make_shared<Event>(); }
  ~Turn() { std::exchange(agent_.turn_, nullptr)->set(); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  GuestAgent& agent_;
};

struct GuestAgent::Bell {
  asio::posix::stream_descriptor socket;
  std::shared_ptr<Event> next = std::make_shared<Event>();  // set when it rings next
};

GuestAgent::GuestAgent(asio::io_context& io, Fd socket, Fd bell)
    : io_(io),
      stream_(std::make_shared<JsonStream>(io, std::move(socket), kMaxLine, "guest-agent")),
      bell_(std::make_shared<Bell>(asio::posix::stream_descriptor(io, bell.release()))) {
  start_detached(io_, hear(bell_));
}

GuestAgent::~GuestAgent() {
  close();
}

void GuestAgent::close() {
  stream_->close();
  boost::system::error_code ignored;
  bell_->socket.close(ignored);
}

Task<void> GuestAgent::hear(std::shared_ptr<Bell> bell) {
  std::array<char, 4096> bytes{};
  boost::system::error_code ended;
  while (true) {
    co_await bell->socket.async_read_some(asio::buffer(bytes),
                                          asio::redirect_error(asio::use_awaitable, ended));
    if (ended) co_return;
    log::debug("the guest rings");
    std::exchange(bell->next, std::make_shared<Event>())->set();
    // A guest that rings without end costs us no more than this.
    co_await sleep_for(kFirstPause);
  }
}

Task<Result<std::string>> GuestAgent::read_line(Deadline deadline) {
  // A read that an earlier caller gave up on still goes on, and what it brings is the next line in
  // order: synchronise() knows how to pass over what nobody waits for any more.
  if (!reading_) {
    reading_ = std::make_shared<Reading>();
    start_detached(io_, read_into(stream_, reading_));
  }
  const auto reading = reading_;
  if (!co_await reading->done.wait(deadline)) {
    synchronised_ = false;
    CO_FAIL(ErrorKind::kTimeout, "the guest agent did not answer in time");
  }
  reading_.reset();
  co_return std::move(*reading->line);
}

Task<void> GuestAgent::read_into(std::shared_ptr<JsonStream> stream,
                                 std::shared_ptr<Reading> reading) {
  reading->line = co_await stream->read_line();
  reading->done.set();
}

Task<Status> GuestAgent::synchronise(Deadline deadline) {
  std::uint32_t id = 0;
  CO_TRY(const std::string drawn, random_bytes(sizeof id));
  std::memcpy(&id, drawn.data(), sizeof id);
  id >>= 2U;
  // The 0xFF makes the agent drop half a command that it may have kept; it answers with one, too.
  const json command = {{"execute", "guest-sync-delimited"}, {"arguments", {{"id", id}}}};
  CO_CHECK(co_await stream_->write_raw("\xFF" + dump(command) + "\n"));
  // Replies to whatever was asked before come first; a hostile guest may send them for ever.
  while (!deadline.expired()) {
    CO_TRY(std::string line, co_await read_line(deadline));
    if (const auto mark = line.rfind('\xFF'); mark != std::string::npos) line.erase(0, mark + 1);
    const auto reply = json::parse(line, nullptr, false);
    if (!reply.is_discarded() && reply.is_object() && reply.contains("return") &&
        reply["return"] == id) {
      synchronised_ = true;
      co_return Status();
    }
  }
  CO_FAIL(ErrorKind::kTimeout, "the guest agent did not synchronise in time");
}

Task<Result<json>> GuestAgent::call(std::string command, json arguments, Deadline deadline) {
  CO_TRY(const auto turn, co_await Turn::take(*this, deadline));
  if (!synchronised_) CO_CHECK(co_await synchronise(deadline));
  json message = {{"execute", command}};
  if (!arguments.empty()) message["arguments"] = std::move(arguments);
  synchronised_ = false;
  CO_CHECK(co_await stream_->write(message));
  CO_TRY(const std::string line, co_await read_line(deadline));
  synchronised_ = true;
  const auto reply = json::parse(line, nullptr, false);
  if (reply.is_discarded() || !reply.is_object()) CO_FAIL("the guest agent sent junk");
  if (const auto error = reply.find("error"); error != reply.end()) {
    CO_FAIL("the guest agent refused {}: {}", command, escape_line(dump(*error)));
  }
  if (!reply.contains("return")) CO_FAIL("the guest agent's reply to {} has no result", command);
  co_return reply["return"];
}

Task<Result<GuestCommandResult>> GuestAgent::run(std::string path,
                                                 std::vector<std::string> arguments,
                                                 std::string input, Deadline deadline) {
  json request = {{"path", path}, {"arg", arguments}, {"capture-output", true}};
  if (!input.empty()) request["input-data"] = base64_encode(input);
  CO_TRY(const json started, co_await call("guest-exec", std::move(request), deadline));
  CO_TRY(const auto pid, integer(started, "pid"));
  auto pause = kFirstPause;
  while (true) {
    const auto rung = bell_->next;  // before the question: it may ring during the answer
    json which = {{"pid", pid}};
    CO_TRY(const json status, co_await call("guest-exec-status", std::move(which), deadline));
    if (!status.is_object() || !status.contains("exited") || !status["exited"].is_boolean()) {
      CO_FAIL("the guest agent's status of {} makes no sense", path);
    }
    if (status["exited"].get<bool>()) co_return to_result(status);
    if (deadline.expired())
      CO_FAIL(ErrorKind::kTimeout, "{} in the guest did not finish in time", path);
    if (co_await rung->wait(deadline.sooner(pause)))
      pause = kFirstPause;
    else
      pause = std::min(pause * 2, kLongestPause);
  }
}

Task<Result<GuestCommandResult>> GuestAgent::run_script(std::string_view script, std::string input,
                                                        Deadline deadline) {
  std::vector<std::string> arguments{"-c", kRing + std::string(script)};
  co_return co_await run("/bin/sh", std::move(arguments), std::move(input), deadline);
}

Task<Status> GuestAgent::power_down() {
  json message = {{"execute", "guest-shutdown"}, {"arguments", {{"mode", "powerdown"}}}};
  co_return co_await stream_->write(message);
}

}  // namespace agent_vm

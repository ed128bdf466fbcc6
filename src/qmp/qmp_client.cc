#include "qmp/qmp_client.h"

#include "base/log.h"
#include "base/text.h"

namespace agent_vm {

using nlohmann::json;

namespace {
// query-qmp-schema, which we never ask for, is the largest reply there is, at some 200 KiB.
constexpr std::size_t kMaxLine = 4U << 20U;
}  // namespace

QmpClient::QmpClient(asio::io_context& io, Fd socket)
    : io_(io),
      shared_(std::make_shared<Shared>(JsonStream(io, std::move(socket), kMaxLine, "qmp"))) {}

QmpClient::~QmpClient() {
  close();
}

void QmpClient::close() {
  if (shared_->closed) return;
  shared_->closed = true;
  shared_->on_event = nullptr;
  shared_->stream.close();
  fail_pending(*shared_, Error(ErrorKind::kNotRunning, "the connection to QEMU is closed"));
}

void QmpClient::fail_pending(Shared& shared, const Error& error) {
  for (auto& [id, pending] : std::exchange(shared.pending, {})) {
    pending->result = tl::unexpected(error);
    pending->done.set();
  }
}

Task<Status> QmpClient::start(EventHandler on_event, Deadline deadline) {
  shared_->on_event = std::move(on_event);
  start_detached(io_, read_all(shared_));
  // The greeting needs no waiting for: QEMU reads our first command after it has sent it.
  json none = json::object();
  CO_TRY(const auto reply, co_await execute("qmp_capabilities", std::move(none), deadline));
  co_return Status();
}

Task<void> QmpClient::read_all(std::shared_ptr<Shared> shared) {
  while (true) {
    auto message = co_await shared->stream.read();
    if (shared->closed) co_return;
    if (!message) {
      fail_pending(*shared, message.error());
      co_return;
    }
    dispatch(*shared, *message);
  }
}

void QmpClient::dispatch(Shared& shared, const json& message) {
  if (!message.is_object()) return;
  if (const auto event = message.find("event"); event != message.end() && event->is_string()) {
    const auto data = message.find("data");
    if (shared.on_event) {
      shared.on_event(event->get<std::string>(), data == message.end() ? json::object() : *data);
    }
    return;
  }
  const auto id = message.find("id");
  if (id == message.end() || !id->is_number_unsigned()) return;
  const auto found = shared.pending.find(id->get<std::uint64_t>());
  if (found == shared.pending.end()) return;  // gave up waiting for it
  const auto pending = found->second;
  shared.pending.erase(found);
  if (const auto error = message.find("error"); error != message.end()) {
    const auto text = error->is_object() && error->contains("desc") && (*error)["desc"].is_string()
                          ? (*error)["desc"].get<std::string>()
                          : dump(*error);
    pending->result = fail("QEMU refused: {}", escape_line(text));
  } else {
    const auto value = message.find("return");
    pending->result = value == message.end() ? json() : *value;
  }
  pending->done.set();
}

Task<Result<json>> QmpClient::await_reply(std::shared_ptr<Shared> shared, std::uint64_t id,
                                          std::shared_ptr<Pending> pending, std::string command,
                                          Deadline deadline) {
  if (!co_await pending->done.wait(deadline)) {
    shared->pending.erase(id);
    CO_FAIL(ErrorKind::kTimeout, "QEMU did not answer '{}' in time", command);
  }
  if (!*pending->result) {
    Error error = Error(pending->result->error()).within(command);
    co_return tl::unexpected(std::move(error));
  }
  co_return std::move(**pending->result);
}

Task<Result<json>> QmpClient::execute(std::string command, json arguments, Deadline deadline) {
  const auto shared = shared_;
  if (shared->closed) CO_FAIL(ErrorKind::kNotRunning, "the connection to QEMU is closed");
  const std::uint64_t id = shared->next_id++;
  json message = {{"execute", command}, {"id", id}};
  if (!arguments.empty()) message["arguments"] = std::move(arguments);
  auto pending = std::make_shared<Pending>();
  shared->pending[id] = pending;
  CO_CHECK(co_await shared->stream.write(message));
  co_return co_await await_reply(shared, id, pending, command, deadline);
}

Task<Status> QmpClient::pass_descriptor(std::string name, int descriptor, Deadline deadline) {
  const auto shared = shared_;
  if (shared->closed) CO_FAIL(ErrorKind::kNotRunning, "the connection to QEMU is closed");
  const std::uint64_t id = shared->next_id++;
  const json message = {{"execute", "getfd"}, {"id", id}, {"arguments", {{"fdname", name}}}};
  auto pending = std::make_shared<Pending>();
  shared->pending[id] = pending;
  CO_CHECK(shared->stream.write_with_descriptor(message, descriptor));
  CO_TRY(const auto reply, co_await await_reply(shared, id, pending, "getfd", deadline));
  co_return Status();
}

}  // namespace agent_vm

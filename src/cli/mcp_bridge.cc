#include "cli/mcp_bridge.h"

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/text.h"

namespace agent_vm {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

constexpr auto kPause = 200ms;  // between two looks at an endpoint that is not there
constexpr auto kProbe = 5s;
constexpr auto kLastWords = 600ms;
constexpr auto kGoodbye = 200ms;
constexpr int kServerUnavailable = -32000;
constexpr const char* kMetaVersion = "io.modelcontextprotocol/protocolVersion";

std::string error_line(const std::string& id, const std::string& message) {
  const json quoted = message;
  return fmt::format(R"({{"jsonrpc":"2.0","id":{},"error":{{"code":{},"message":{}}}}})", id,
                     kServerUnavailable,
                     quoted.dump(-1, ' ', true, json::error_handler_t::replace));
}

// Members of what may be anything: the client's and the server's texts are not ours.
json member(const json& object, const char* key) {
  return object.is_object() && object.contains(key) ? object[key] : json();
}
std::string text_member(const json& object, const char* key) {
  const json value = member(object, key);
  return value.is_string() ? value.get<std::string>() : "";
}
std::string revision_of(const json& message) {
  return text_member(member(member(message, "params"), "_meta"), kMetaVersion);
}

// A header value that is no plain ASCII travels in Base64.
std::string header_value(const std::string& text) {
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c < 127; }) &&
      trim(text) == text && !text.starts_with("=?base64?");
  return plain ? text : "=?base64?" + base64_encode(text) + "?=";
}

// Whether a body is a message that the client can match with its request; a refusal before that was
// read has another id.
bool answers(const std::string& body, const std::string& id) {
  const json message = json::parse(body, nullptr, false);
  return !id.empty() && message.is_object() && member(message, "id").dump() == id;
}

bool answers_request(const std::string& message) {
  const json parsed = json::parse(message, nullptr, false);
  return parsed.is_object() && (parsed.contains("result") || parsed.contains("error"));
}

}  // namespace

McpBridge::McpBridge(asio::io_context& io, const VmDirectory& vm, const std::string& server,
                     Write write, std::chrono::milliseconds patience)
    : io_(io),
      vm_(vm),
      target_(server.empty() ? "/mcp" : "/servers/" + server + "/mcp"),
      write_(std::move(write)),
      patience_(patience) {}

Task<void> McpBridge::take(std::string line) {
  const json message = json::parse(line, nullptr, false);
  if (!message.is_object()) {
    write_(
        R"({"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"not a JSON-RPC message"}})");
    co_return;
  }
  const std::string method = text_member(message, "method");
  auto flight = std::make_shared<Flight>();
  flight->stateless = !revision_of(message).empty();
  if (!method.empty() && message.contains("id")) {
    const std::string id = message["id"].dump();
    if (method == "initialize") initialize_ = line;
    flight->id = id;
    flights_[id] = flight;
    Task<void> task = forward(std::move(line), id, flight);
    if (method == "initialize") {
      co_await std::move(task);  // what follows needs its session
    } else {
      start_detached(io_, std::move(task));
    }
    co_return;
  }
  if (method == "notifications/initialized") initialized_ = line;
  if (method == "notifications/cancelled") {
    const json id = member(member(message, "params"), "requestId");
    const auto cancelled = flights_.find(id.dump());
    // Over HTTP a client of the later revision cancels by going away.
    if (cancelled != flights_.end() && cancelled->second->stateless) {
      cancelled->second->exchange.cancel();
      co_return;
    }
  }
  bool answered = false;
  const auto sent = co_await deliver(std::move(line), flight, answered);
  if (!sent) log::warn("{}", sent.error().message());
  if (method == "notifications/initialized" && !std::exchange(listening_, true)) {
    start_detached(io_, listen());
  }
}

McpRequest McpBridge::request_for(const std::string& line, bool stateless) const {
  McpRequest request;
  request.target = target_;
  request.body = line;
  if (!stateless) {
    if (!session_.empty()) request.headers.emplace_back("Mcp-Session-Id", session_);
    if (!version_.empty()) request.headers.emplace_back("MCP-Protocol-Version", version_);
    return request;
  }
  const json message = json::parse(line, nullptr, false);
  const json params = member(message, "params");
  request.headers.emplace_back("MCP-Protocol-Version", header_value(revision_of(message)));
  request.headers.emplace_back("Mcp-Method", header_value(text_member(message, "method")));
  for (const char* key : {"name", "uri"}) {
    const std::string name = text_member(params, key);
    if (name.empty()) continue;
    request.headers.emplace_back("Mcp-Name", header_value(name));
    break;
  }
  return request;
}

Task<Status> McpBridge::endpoint_there(Deadline deadline) {
  while (true) {
    const auto endpoint = mcp_endpoint_of(vm_);
    if (!endpoint) co_return tl::unexpected(endpoint.error());
    McpExchange probe;
    McpRequest health;
    health.method = "GET";
    health.target = "/health";
    const McpExchange::OnMessage ignore = [](const std::string&, const std::string&) {};
    const auto answer =
        co_await probe.run(*endpoint, std::move(health), ignore, Deadline::in(kProbe));
    if (answer && answer->status == 200) {
      reachable_ = true;
      co_return Status();
    }
    if (answer && answer->status != 503) {
      CO_FAIL("the MCP endpoint of VM {} answers with status {}", vm_.name(), answer->status);
    }
    if (finished_ || deadline.expired()) {
      CO_FAIL(ErrorKind::kNotRunning, "VM {} does not answer; start it: agent-vm start {}",
              vm_.name(), vm_.name());
    }
    co_await sleep_for(kPause);
  }
}

Task<Result<McpAnswer>> McpBridge::deliver(std::string line, std::shared_ptr<Flight> flight,
                                           bool& answered) {
  const Deadline deadline = Deadline::in(patience_);
  const McpExchange::OnMessage on_message = [&](const std::string& message, const std::string&) {
    answered = answered || answers_request(message);
    write_(message);
  };
  const bool handshake = line == initialize_;
  while (true) {
    if (!reachable_) CO_CHECK(co_await endpoint_there(deadline));
    const auto endpoint = mcp_endpoint_of(vm_);
    if (!endpoint) co_return tl::unexpected(endpoint.error());
    const std::uint64_t session = sessions_;
    McpRequest request = request_for(line, flight->stateless);
    if (handshake) request.headers.clear();
    auto answer =
        co_await flight->exchange.run(*endpoint, std::move(request), on_message, Deadline::never());
    if (!answer) {
      if (flight->exchange.cancelled()) co_return answer;
      reachable_ = false;
      const bool unsent = answer.error().kind() == ErrorKind::kNotRunning;
      if (!unsent || deadline.expired()) co_return answer;
      continue;
    }
    if (answer->status == 503 && !deadline.expired()) {  // refused before anything was done
      co_await sleep_for(kPause);
      continue;
    }
    const bool lost = answer->status == 404 && !session_.empty() && !flight->stateless;
    if (lost && !handshake && !deadline.expired()) {
      if (sessions_ == session) CO_CHECK(co_await open_session());
      continue;
    }
    if (answers(answer->body, flight->id)) {
      answered = true;
      std::string body = std::move(answer->body);
      std::replace_if(
          body.begin(), body.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
      if (handshake && !answer->session_id.empty()) {
        session_ = answer->session_id;
        ++sessions_;
        const json parsed = json::parse(body, nullptr, false);
        version_ = text_member(member(parsed, "result"), "protocolVersion");
      }
      write_(body);
    }
    co_return answer;
  }
}

Task<void> McpBridge::forward(std::string line, std::string id, std::shared_ptr<Flight> flight) {
  bool answered = false;
  const auto answer = co_await deliver(std::move(line), flight, answered);
  flights_.erase(id);
  if (answered || finished_ || flight->exchange.cancelled()) co_return;
  const std::string why = answer ? fmt::format("the answer ended early (status {})", answer->status)
                                 : answer.error().message();
  const std::string text = why + "; the request was not repeated";
  write_(error_line(id, text));
}

// The session that the gateway lost, again. Its answer is no news to the client.
Task<Status> McpBridge::open_session() {
  ++sessions_;
  const auto endpoint = mcp_endpoint_of(vm_);
  if (!endpoint) co_return tl::unexpected(endpoint.error());
  McpExchange exchange;
  const McpExchange::OnMessage ignore = [](const std::string&, const std::string&) {};
  McpRequest request;
  request.target = target_;
  request.body = initialize_;
  const auto answer =
      co_await exchange.run(*endpoint, std::move(request), ignore, Deadline::in(patience_));
  if (!answer) co_return tl::unexpected(answer.error());
  if (answer->session_id.empty()) CO_FAIL("the session cannot be opened again");
  session_ = answer->session_id;
  last_event_.clear();
  log::info("the session was opened again");
  if (initialized_.empty()) co_return Status();
  McpExchange second;
  McpRequest notification = request_for(initialized_, false);
  const auto told =
      co_await second.run(*endpoint, std::move(notification), ignore, Deadline::in(patience_));
  if (!told) co_return tl::unexpected(told.error());
  if (listener_) listener_->exchange.cancel();  // it listens to the old one
  co_return Status();
}

// What the server says unasked, for as long as the client is there.
Task<void> McpBridge::listen() {
  const McpExchange::OnMessage on_message = [this](const std::string& message,
                                                   const std::string& id) {
    if (!id.empty()) last_event_ = id;
    write_(message);
  };
  while (!finished_) {
    const Deadline deadline = Deadline::in(patience_);
    if (!reachable_) {
      const Status there = co_await endpoint_there(deadline);
      if (!there) continue;
    }
    const auto endpoint = mcp_endpoint_of(vm_);
    if (!endpoint || session_.empty()) co_return;
    listener_ = std::make_shared<Flight>();
    McpRequest request = request_for("", false);
    request.method = "GET";
    if (!last_event_.empty()) request.headers.emplace_back("Last-Event-ID", last_event_);
    const std::uint64_t session = sessions_;
    const auto answer = co_await listener_->exchange.run(*endpoint, std::move(request), on_message,
                                                         Deadline::never());
    if (!answer && !listener_->exchange.cancelled()) reachable_ = false;
    if (answer && answer->status == 400) last_event_.clear();  // too old to be resumed
    if (answer && answer->status == 404 && sessions_ == session) {
      const Status opened = co_await open_session();
      if (!opened) log::warn("{}", opened.error().message());
    }
    if (answer && answer->status == 405) co_return;  // this server has nothing to say
    co_await sleep_for(kPause);
  }
}

Task<void> McpBridge::finish() {
  const Deadline deadline = Deadline::in(kLastWords);
  while (!flights_.empty() && !deadline.expired()) co_await sleep_for(10ms);
  finished_ = true;
  if (session_.empty() || !reachable_) co_return;
  const auto endpoint = mcp_endpoint_of(vm_);
  if (!endpoint) co_return;
  McpExchange exchange;
  McpRequest request = request_for("", false);
  request.method = "DELETE";
  const McpExchange::OnMessage ignore = [](const std::string&, const std::string&) {};
  const auto ended =
      co_await exchange.run(*endpoint, std::move(request), ignore, Deadline::in(kGoodbye));
  if (!ended) log::debug("the session was not ended: {}", ended.error().message());
}

}  // namespace agent_vm

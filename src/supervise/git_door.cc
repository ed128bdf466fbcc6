#include "supervise/git_door.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "net/descriptor_passing.h"
#include "net/tcp_counts.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr std::size_t kMostAtOnce = 8;
constexpr std::size_t kMostLine = 2048;
constexpr std::chrono::seconds kLinePatience{10};

// Until the newline; the guest says nothing more before it has an answer.
Task<Result<std::string>> read_line(asio::io_context& io, int connection) {
  const auto descriptor =
      std::make_shared<asio::posix::stream_descriptor>(io, ::fcntl(connection, F_DUPFD_CLOEXEC, 0));
  asio::steady_timer timer(io, kLinePatience);
  timer.async_wait([descriptor](const boost::system::error_code& error) {
    if (!error) descriptor->cancel();
  });
  std::string line;
  std::array<char, kMostLine> buffer{};
  while (!line.ends_with('\n')) {
    const auto [error, got] = co_await descriptor->async_read_some(
        asio::buffer(buffer), asio::as_tuple(asio::use_awaitable));
    if (error) CO_FAIL("it did not say what it wants");
    line.append(buffer.data(), got);
    if (line.size() > kMostLine || line.find('\n') < line.size() - 1)
      CO_FAIL("it said more than one line of {} bytes", kMostLine);
  }
  co_return line;
}

void answer(int connection, const json& words) {
  const std::string line = words.dump() + "\n";
  static_cast<void>(::send(connection, line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
}

json begin_record(const GitRequest& request) {
  const std::string rule = request.as_rule();
  return {{"event", "request"},
          {"method", request.push ? "PUSH" : "FETCH"},
          {"url", rule.substr(rule.find(' ') + 1)},
          {"status", nullptr}};
}

// Both directions, as the kernel has counted them.
void add_sizes(json& record, int connection) {
  const auto counts = tcp_counts(connection);
  if (!counts) return;
  record["sent"] = counts->received;
  record["received"] = counts->acknowledged;
}

}  // namespace

Result<GitRequest> parse_git_line(std::string_view line, std::string& version) {
  const json words = json::parse(line, nullptr, false);
  const auto text = [&](const char* name) {
    const auto found = words.find(name);
    return found != words.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  if (!words.is_object()) return fail(ErrorKind::kInvalidInput, "the request is not a JSON object");
  const std::string service = text("service");
  if (service != "git-upload-pack" && service != "git-receive-pack") {
    return fail(ErrorKind::kInvalidInput, "'{}' is neither git-upload-pack nor git-receive-pack",
                escape_line(service.substr(0, 80)));
  }
  const auto port = parse_unsigned(text("port"));
  if (!port || *port > 65535) return fail(ErrorKind::kInvalidInput, "it names no port");
  GitRequest request{.push = service == "git-receive-pack",
                     .user = text("user"),
                     .host = lower(text("host")),
                     .port = static_cast<std::uint16_t>(*port),
                     .path = text("path")};
  TRY(validate(request));
  version = text("version");
  if (!version.empty() && version != "version=1" && version != "version=2")
    return fail(ErrorKind::kInvalidInput, "it names an unknown version of git's protocol");
  return request;
}

Status GitDoor::apply(const NetworkPolicy& policy) {
  policy_ = policy;
  const bool wanted = policy.mode != NetworkMode::kOff;
  if (wanted == open_) return {};
  open_ = wanted;
  ++generation_;
  if (!wanted) {
    static_cast<void>(::shutdown(door_.get(), SHUT_RDWR));
    for (const auto& [id, pending] : pending_) ::shutdown(pending->connection, SHUT_RDWR);
    return {};
  }
  if (::listen(door_.get(), static_cast<int>(kMostAtOnce)) != 0)
    return fail_errno(errno, "cannot listen for git");
  if (!std::exchange(hears_, true)) start_detached(io_, hear_broker());
  start_detached(io_, accept(generation_));
  return {};
}

Task<void> GitDoor::accept(unsigned generation) {
  asio::posix::stream_descriptor door(io_, ::fcntl(door_.get(), F_DUPFD_CLOEXEC, 0));
  while (true) {
    const auto [error] = co_await door.async_wait(asio::posix::stream_descriptor::wait_read,
                                                  asio::as_tuple(asio::use_awaitable));
    // Closing the network wakes this up, too.
    if (error || generation != generation_) co_return;
    Fd connection(::accept4(door.native_handle(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!connection) continue;
    if (served_ >= kMostAtOnce) {
      answer(connection.get(), {{"error", "too many repositories at once: try again"}});
      continue;
    }
    start_detached(io_, serve(std::move(connection)));
  }
}

Task<void> GitDoor::serve(Fd connection) {
  ++served_;
  const auto begin = std::chrono::steady_clock::now();
  std::string version;
  const auto line = co_await read_line(io_, connection.get());
  const auto request = line ? parse_git_line(*line, version) : tl::unexpected(line.error());
  if (!request) {
    answer(connection.get(), {{"error", request.error().message()}});
  } else {
    json record = begin_record(*request);
    const GitDecision decision = decide(policy_, *request);
    record["decision"] = decision.allowed ? "allow" : "refuse";
    record["rule"] = decision.rule;
    if (!decision.allowed) {
      record["why"] = decision.why;
      answer(connection.get(),
             {{"error", fmt::format("{} ({}); its owner can run: agent-vm net allow --vm {} {}",
                                    decision.why, decision.rule, shell_quote(vm_name_),
                                    shell_quote(request->as_rule()))}});
    } else if (const auto ended = co_await run_ssh(*request, version, connection); !ended) {
      record["error"] = ended.error().message();
    } else {
      record["status"] = ended->value("status", -1);
      if (const auto error = ended->value("error", ""); !error.empty()) record["error"] = error;
      add_sizes(record, connection.get());
    }
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    record["ms"] = static_cast<std::int64_t>(took.count());
    record_(record);
  }
  --served_;
}

Task<Result<json>> GitDoor::run_ssh(const GitRequest& request, const std::string& version,
                                    const Fd& connection) {
  const unsigned id = next_id_++;
  const json order = {{"id", id},
                      {"push", request.push},
                      {"user", request.user},
                      {"host", request.host},
                      {"port", request.port},
                      {"path", request.path},
                      {"version", version}};
  answer(connection.get(), {{"ok", true}});
  CO_CHECK(send_descriptors(broker_.get(), order.dump(), {connection.get()}));
  const auto pending = std::make_shared<Pending>();
  pending->connection = connection.get();
  pending_[id] = pending;
  co_await pending->ended.wait(Deadline::never());
  pending_.erase(id);
  co_return pending->answer;
}

Task<void> GitDoor::hear_broker() {
  asio::posix::stream_descriptor descriptor(io_, ::fcntl(broker_.get(), F_DUPFD_CLOEXEC, 0));
  std::string message(8192, '\0');
  while (true) {
    const auto [error, got] = co_await descriptor.async_read_some(
        asio::buffer(message), asio::as_tuple(asio::use_awaitable));
    if (error) break;
    const json words = json::parse(message.substr(0, got), nullptr, false);
    const auto found = words.is_object() ? pending_.find(words.value("id", ~0U)) : pending_.end();
    if (found == pending_.end()) continue;
    found->second->answer = words;
    found->second->ended.set();
  }
  broker_runs_ = false;
  log::error("the git broker has ended: there is no git over SSH until the next start");
  for (const auto& [id, pending] : pending_) {
    pending->answer = {{"status", -1}, {"error", "the process that runs ssh has ended"}};
    pending->ended.set();
  }
}

}  // namespace agent_vm

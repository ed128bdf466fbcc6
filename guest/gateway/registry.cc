#include "gateway/registry.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/log.h"
#include "base/text.h"

namespace agent_vm::gateway {
namespace {

// 128 bits: nobody guesses one.
Result<std::string> random_id() {
  std::array<std::uint8_t, 16> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return fail_errno(errno, "no randomness");
  }
  return to_hex(bytes);
}

}  // namespace

Registry::Registry(boost::asio::any_io_executor executor, const Config& config,
                   std::shared_ptr<workspace::Service> workspace)
    : executor_(executor), config_(config), store_(config.state_directory) {
  ServerEntry& built_in = servers_[std::string(kWorkspaceServer)];
  built_in.name = kWorkspaceServer;
  built_in.make_backend = [executor, workspace] {
    return make_workspace_backend(executor, workspace);
  };
  for (const auto& [name, server_config] : config.servers) {
    ServerEntry& entry = servers_[name];
    entry.name = name;
    entry.make_backend = [executor, &config, &entry, &server = server_config] {
      return make_stdio_backend(executor, server, config.workspace_root, entry.state,
                                config.limits.max_line_bytes);
    };
  }
}

Status Registry::restore() {
  TRY(store_.prepare());
  for (mcp::SessionRecord& record : store_.load_all()) {
    const auto server = servers_.find(record.server);
    if (server == servers_.end() || sessions_.size() >= config_.limits.max_sessions) {
      store_.remove(record.id);
      continue;
    }
    const std::string id = record.id;
    sessions_[id] = std::make_shared<LiveSession>(
        executor_, server->second, mcp::Session(std::move(record)), config_.limits,
        [this](const mcp::SessionRecord& changed) { (void)store_.save(changed); });
  }
  if (!sessions_.empty()) log::info("{} sessions taken up again", sessions_.size());
  return {};
}

ServerEntry* Registry::server(const std::string& name) {
  const auto found = servers_.find(name.empty() ? config_.default_server : name);
  return found == servers_.end() ? nullptr : &found->second;
}

Result<std::shared_ptr<LiveSession>> Registry::create(ServerEntry& server, bool one_stream) {
  if (sessions_.size() >= config_.limits.max_sessions && !make_room()) {
    return fail(ErrorKind::kNotRunning, "{} sessions are in use already", sessions_.size());
  }
  park_excess(server);
  std::string id = TRY(random_id());
  auto session = std::make_shared<LiveSession>(
      executor_, server, mcp::Session(id, server.name, one_stream), config_.limits,
      [this, one_stream](const mcp::SessionRecord& record) {
        if (one_stream) return;  // it lives and dies with its connection
        if (const Status saved = store_.save(record); !saved) {
          log::warn("{}", saved.error().message());
        }
      });
  sessions_[id] = session;
  return session;
}

// The session nobody uses that was unused for longest: of one server or of all, perhaps only among
// those that have a process.
std::shared_ptr<LiveSession> Registry::oldest_idle(const ServerEntry* server,
                                                   bool with_process) const {
  std::shared_ptr<LiveSession> oldest;
  for (const auto& [id, session] : sessions_) {
    if (!session->idle() || (server != nullptr && &session->server() != server)) continue;
    if (with_process && session->server_pid() == 0) continue;
    if (!oldest || session->last_used() < oldest->last_used()) oldest = session;
  }
  return oldest;
}

bool Registry::make_room() {
  const auto oldest = oldest_idle(nullptr, false);
  if (!oldest) return false;
  log::info("session {}... given up to make room", oldest->id().substr(0, 6));
  remove(oldest->id());
  return true;
}

// Clients that come again and again without ending their sessions must not fill the memory.
void Registry::park_excess(const ServerEntry& server) {
  std::size_t processes = 0;
  for (const auto& [id, session] : sessions_) {
    if (&session->server() == &server && session->server_pid() > 0) ++processes;
  }
  if (processes < config_.limits.max_processes) return;
  if (const auto oldest = oldest_idle(&server, true)) oldest->park();
}

std::shared_ptr<LiveSession> Registry::find(const std::string& id, const ServerEntry& server) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end() || &found->second->server() != &server) return nullptr;
  return found->second;
}

void Registry::remove(const std::string& id) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  found->second->close();
  sessions_.erase(found);
  store_.remove(id);
}

void Registry::sweep() {
  const auto now = Clock::now();
  std::vector<std::string> dead;
  for (const auto& [id, session] : sessions_) {
    if (!session->idle()) continue;
    const auto unused = now - session->last_used();
    if (!session->core().established()) {
      if (unused > config_.limits.start_timeout) dead.push_back(id);
    } else if (unused > config_.limits.idle_timeout) {
      session->park();
    }
  }
  for (const std::string& id : dead) remove(id);
}

void Registry::close_all(const process::StopPolicy& policy) {
  for (const auto& [id, session] : sessions_) session->close(policy);
  sessions_.clear();
}

void Registry::notify_all() {
  for (const auto& [id, session] : sessions_) session->changed().notify();
}

nlohmann::ordered_json Registry::details() const {
  nlohmann::ordered_json servers;
  for (const auto& [name, entry] : servers_) {
    std::size_t sessions = 0;
    bool starting = false;
    nlohmann::ordered_json pids = nlohmann::ordered_json::array();
    bool running = false;
    for (const auto& [id, session] : sessions_) {
      if (&session->server() != &entry) continue;
      ++sessions;
      running = running || session->has_server();
      starting = starting || session->starting();
      if (session->server_pid() > 0) pids.push_back(session->server_pid());
    }
    const bool failed = !running && entry.state.is_failed();
    servers[name] = {{"state", failed     ? "failed"
                               : starting ? "starting"
                               : running  ? "running"
                                          : "idle"},
                     {"sessions", sessions},
                     {"pids", std::move(pids)},
                     {"starts", entry.state.starts},
                     {"restarts", entry.state.crashes},
                     {"junk_lines", entry.state.junk_lines},
                     {"last_failure", entry.state.last_failure},
                     {"stderr", entry.state.stderr_lines.lines()}};
  }
  return servers;
}

}  // namespace agent_vm::gateway

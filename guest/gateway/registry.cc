#include "gateway/registry.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/log.h"
#include "base/text.h"

namespace agent_vm::gateway {

Result<std::string> random_id() {
  std::array<std::uint8_t, 16> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return fail_errno(errno, "no randomness");
  }
  return to_hex(bytes);
}

Registry::Registry(boost::asio::any_io_executor executor, const Config& config,
                   std::shared_ptr<workspace::Service> workspace, std::string state_key)
    : executor_(executor),
      config_(config),
      store_(config.state_directory),
      signer_(std::move(state_key)) {
  auto built_in = std::make_shared<ServerEntry>();
  built_in->name = kWorkspaceServer;
  built_in->make_backend = [executor, workspace] {
    return make_workspace_backend(executor, workspace);
  };
  servers_[built_in->name] = std::move(built_in);
  servers_changed();
}

void Registry::configure(ServerEntry& entry, const StdioServerConfig& server) {
  // The entry outlives its backends: whoever runs one holds it.
  entry.make_backend = [this, &entry, server] {
    return make_stdio_backend(executor_, server, config_.workspace_root, entry.state,
                              config_.limits.max_line_bytes);
  };
}

void Registry::servers_changed() {
  for (auto known = configured_.begin(); known != configured_.end();) {
    if (config_.servers.count(known->first) != 0) {
      ++known;
      continue;
    }
    const auto entry = servers_.extract(known->first).mapped();
    end_all_of(*entry, "the server was removed");
    log::info("server {}: removed", known->first);
    known = configured_.erase(known);
  }
  for (const auto& [name, server] : config_.servers) {
    const auto known = configured_.find(name);
    if (known != configured_.end() && known->second == server) continue;
    std::shared_ptr<ServerEntry>& entry = servers_[name];
    if (!entry) entry = std::make_shared<ServerEntry>();
    entry->name = name;
    configure(*entry, server);
    if (known != configured_.end()) {
      log::info("server {}: changed", name);
      entry->state = ServerState();
      *entry->knowledge = mcp::ServerKnowledge();
      for (const auto& live : all_of(*entry)) live->renew("was configured anew");
    }
    configured_[name] = server;
  }
}

void Registry::end_all_of(const ServerEntry& entry, const std::string& reason) {
  std::vector<std::string> ended;
  for (const auto& [id, session] : sessions_) {
    if (&session->server() == &entry) ended.push_back(id);
  }
  for (const std::string& id : ended) {
    sessions_.at(id)->close({}, reason);
    remove(id);
  }
  for (const Shared& shared : shared_) {
    if (&shared.live->server() == &entry) shared.live->close({}, reason);
  }
  std::erase_if(shared_, [](const Shared& shared) { return shared.live->closed(); });
}

std::vector<std::shared_ptr<LiveServer>> Registry::all_of(const ServerEntry& server) const {
  std::vector<std::shared_ptr<LiveServer>> all;
  for (const auto& [id, session] : sessions_) {
    if (&session->server() == &server) all.push_back(session);
  }
  for (const Shared& shared : shared_) {
    if (&shared.live->server() == &server) all.push_back(shared.live);
  }
  return all;
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

std::shared_ptr<ServerEntry> Registry::server(const std::string& name) {
  const auto found = servers_.find(name.empty() ? config_.default_server : name);
  return found == servers_.end() ? nullptr : found->second;
}

Result<std::shared_ptr<LiveSession>> Registry::create(const std::shared_ptr<ServerEntry>& server,
                                                      bool one_stream) {
  if (sessions_.size() >= config_.limits.max_sessions && !make_room()) {
    return fail(ErrorKind::kNotRunning, "{} sessions are in use already", sessions_.size());
  }
  park_excess(*server);
  std::string id = TRY(random_id());
  auto session = std::make_shared<LiveSession>(
      executor_, server, mcp::Session(id, server->name, one_stream), config_.limits,
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
  for (const auto& live : all_of(server)) processes += live->server_pid() > 0 ? 1 : 0;
  if (processes < config_.limits.max_processes) return;
  if (const auto oldest = oldest_idle(&server, true)) oldest->park();
}

tl::expected<std::shared_ptr<LiveShared>, mcp::Refusal> Registry::shared(
    const std::shared_ptr<ServerEntry>& server, const mcp::StatelessRequest& request) {
  if (!request.request_state.empty()) {
    const auto state = signer_.verify(request.request_state, steady_seconds());
    if (!state) {
      return tl::unexpected(mcp::refuse(mcp::kInvalidParams, state.error(), request.id));
    }
    for (const Shared& shared : shared_) {
      if (shared.live->core().number() == state->server && &shared.live->server() == server.get()) {
        return shared.live;
      }
    }
    return tl::unexpected(mcp::refuse(
        mcp::kInvalidParams, "the call of this requestState has ended; call again", request.id));
  }
  // As a value, so that the order of members and white space do not matter.
  const std::string key = nlohmann::json::parse(request.capabilities, nullptr, false)
                              .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::size_t count = 0;
  std::erase_if(shared_, [](const Shared& one) {
    if (!one.live->core().tainted() || !one.live->unused()) return false;
    one.live->close();
    return true;
  });
  for (const Shared& shared : shared_) {
    if (&shared.live->server() != server.get()) continue;
    ++count;
    const mcp::SharedServer& core = shared.live->core();
    const bool busy = core.busy() || shared.live->claimed();
    const bool alone = !core.parked() && !core.tainted() && !(server->knowledge->asks && busy);
    const bool fits = !request.may_ask() || alone;
    if (shared.key == key && fits) return shared.live;
  }
  if (count >= config_.limits.max_processes) {
    const auto idle = std::find_if(shared_.begin(), shared_.end(), [&](const Shared& one) {
      return &one.live->server() == server.get() && one.live->unused();
    });
    if (idle == shared_.end()) {
      return tl::unexpected(
          mcp::refuse(mcp::kServerUnavailable,
                      fmt::format("{} processes of the server {} are in use", count, server->name),
                      request.id, 503));
    }
    idle->live->close();
    shared_.erase(idle);
  }
  park_excess(*server);
  auto live = std::make_shared<LiveShared>(executor_, server, config_.limits, next_shared_++,
                                           request, signer_);
  shared_.push_back({key, live});
  return live;
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
  std::erase_if(shared_, [&](const Shared& shared) {
    shared.live->sweep();
    if (!shared.live->unused() || now - shared.live->last_used() < config_.limits.idle_timeout) {
      return false;
    }
    shared.live->close();
    return true;
  });
}

void Registry::close_all(const process::StopPolicy& policy) {
  for (const auto& [id, session] : sessions_) session->close(policy);
  sessions_.clear();
  for (const Shared& shared : shared_) shared.live->close(policy, "the gateway is being stopped");
  shared_.clear();
}

void Registry::notify_all() {
  for (const auto& [id, session] : sessions_) session->changed().notify();
  for (const Shared& shared : shared_) shared.live->changed().notify();
}

nlohmann::ordered_json Registry::details() const {
  nlohmann::ordered_json servers;
  for (const auto& [name, entry] : servers_) {
    nlohmann::ordered_json pids = nlohmann::ordered_json::array();
    bool starting = false;
    bool running = false;
    for (const auto& live : all_of(*entry)) {
      running = running || live->has_server();
      starting = starting || live->starting();
      if (live->server_pid() > 0) pids.push_back(live->server_pid());
    }
    std::size_t sessions = 0;
    for (const auto& [id, session] : sessions_) sessions += &session->server() == entry.get();
    std::size_t shared = 0;
    for (const Shared& one : shared_) shared += &one.live->server() == entry.get();
    const ServerState& state = entry->state;
    const bool failed = !running && state.is_failed();
    servers[name] = {{"state", failed     ? "failed"
                               : starting ? "starting"
                               : running  ? "running"
                                          : "idle"},
                     {"sessions", sessions},
                     {"shared", shared},
                     {"pids", std::move(pids)},
                     {"starts", state.starts},
                     {"restarts", state.crashes},
                     {"junk_lines", state.junk_lines},
                     {"last_failure", state.last_failure},
                     {"stderr", state.stderr_lines.lines()}};
  }
  return servers;
}

}  // namespace agent_vm::gateway

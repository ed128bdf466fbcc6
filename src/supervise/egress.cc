#include "supervise/egress.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>

#include "base/log.h"
#include "launch/egress.h"
#include "os/files.h"
#include "state/authority.h"
#include "supervise/machine.h"

namespace agent_vm {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr std::size_t kLogBytes = 1U << 20U;
constexpr std::size_t kMostRecord = 32768;
constexpr milliseconds kFirstPause{100};
constexpr milliseconds kLongestPause{30'000};
// A child that ran this long has not failed because of how it was started.
constexpr seconds kWellFor{60};
constexpr seconds kDropInterval{5};

milliseconds pause_after(unsigned restarts) {
  return std::min(kLongestPause, kFirstPause * (1U << std::min(restarts, 9U)));
}

}  // namespace

Status Egress::apply(const NetworkPolicy& policy) {
  if (!authority_) {
    authority_ = TRY(open_authority(vm_.fd()));
    start_detached(io_, watch_drops());
  }
  auto ranges = opened_ranges(policy);
  const bool wanted = policy.mode != NetworkMode::kOff;
  const bool is_open = mode_ != NetworkMode::kOff;
  mode_ = policy.mode;
  TRY(git_.apply(policy));
  if (!wanted) {
    if (is_open) log::info("network: off");
    kill();
    // No longer listening: a connection is refused at once, and none waits. Not an error that it
    // never did.
    static_cast<void>(::shutdown(gateway_.door.get(), SHUT_RDWR));
    return {};
  }
  if (is_open && ranges == ranges_) return {};
  // The uplink learns its ranges when it is started.
  const bool only_ranges = is_open;
  ranges_ = std::move(ranges);
  if (only_ranges) {
    if (parts_[kUplink].child) parts_[kUplink].child->kill();
    return {};
  }
  log::info("network: {}", to_string(mode_));
  if (auto opened = open(); !opened) {
    mode_ = NetworkMode::kOff;
    kill();
    return tl::unexpected(std::move(opened).error().within("opening the way out"));
  }
  return {};
}

Status Egress::open() {
  ++generation_;
  constexpr int kMostWaiting = 512;
  if (::listen(gateway_.door.get(), kMostWaiting) != 0)
    return fail_errno(errno, "cannot listen for the proxy");
  logs_ = TRY(open_beneath(vm_.fd(), vm_files::kLogs, O_RDONLY | O_DIRECTORY));
  for (const Role role : {kResolver, kUplink, kProxy}) {
    parts_[role].restarts = 0;
    TRY(start(role));
  }
  return {};
}

Status Egress::start(Role role) {
  const EgressPlan& plan = plan_.egress;
  Part& part = parts_[role];
  PlannedChild child = role == kResolver ? plan.resolver
                       : role == kUplink ? with_private_ranges(plan.uplink, ranges_)
                                         : plan.proxy;
  if (!part.log)
    part.log = std::make_shared<CappedLog>(logs_.get(), child.name + ".log", kLogBytes);
  const Fd words = TRY(log_channel(io_, part.log));
  DescriptorTable table{{DescriptorUse::kLog, words.get()},
                        {DescriptorUse::kNameSocket, gateway_.name_socket.get()},
                        {DescriptorUse::kUplinkTap, gateway_.uplink_tap.get()}};
  SocketPair records;
  if (role == kProxy) {
    records = TRY(make_socket_pair(SOCK_SEQPACKET));
    start_detached(io_, keep_records(std::move(records.ours)));
    table[DescriptorUse::kAuthority] = authority_.get();
    table[DescriptorUse::kAudit] = records.theirs.get();
    table[DescriptorUse::kDoor] = gateway_.door.get();
    table[DescriptorUse::kSecrets] = secrets_.get();
  }
  // The child is known only after this call, its end only later: by then it is in its place.
  part.child = TRY(SupervisedChild::start(io_, child, table, gateway_.network_namespace.get(),
                                          [this, role, generation = generation_](Child::Exit exit) {
                                            if (generation == generation_)
                                              on_end(role, parts_[role].child, exit);
                                          }));
  part.started = std::chrono::steady_clock::now();
  return {};
}

void Egress::on_end(Role role, const std::shared_ptr<SupervisedChild>& child, Child::Exit exit) {
  if (mode_ == NetworkMode::kOff) return;
  Part& part = parts_[role];
  part.last_end = exit.describe();
  if (std::chrono::steady_clock::now() - part.started > kWellFor) part.restarts = 0;
  const auto pause = pause_after(part.restarts++);
  log::warn("the {} {}; it is started again in {} ms", child->name(), exit.describe(),
            pause.count());
  start_detached(io_, restart_later(role, generation_, pause));
}

Task<void> Egress::restart_later(Role role, unsigned generation, milliseconds pause) {
  co_await sleep_for(pause);
  if (generation != generation_ || mode_ == NetworkMode::kOff) co_return;
  if (const auto started = start(role); !started) {
    log::error("{}", started.error().message());
    Part& part = parts_[role];
    part.last_end = started.error().message();
    start_detached(io_, restart_later(role, generation, pause_after(part.restarts++)));
  }
}

void Egress::kill() {
  ++generation_;
  for (auto& part : parts_) {
    if (part.child) part.child->kill();
  }
}

Task<void> Egress::close() {
  mode_ = NetworkMode::kOff;
  kill();
  static_cast<void>(git_.apply({.mode = NetworkMode::kOff}));
  if (!closed_ && gateway_.filter) record_drops();
  closed_ = true;
  for (auto& part : parts_) {
    if (!part.child) continue;
    co_await part.child->wait(Deadline::in(seconds(5)));
  }
}

void Egress::keep(const json& record) {
  if (!audit_) {
    auto opened = AuditLog::open(vm_.fd(), vm_.name());
    if (!opened) return log::error("{}", opened.error().message());
    audit_ = std::move(*opened);
  }
  if (const auto kept = audit_->append(record); !kept) log::error("{}", kept.error().message());
}

// The filter counts, and nobody is told: so it is asked, which costs two system calls, and makes at
// most one record each time, whatever the guest sends.
Task<void> Egress::watch_drops() {
  while (!closed_) {
    co_await sleep_for(kDropInterval);
    if (!closed_) record_drops();
  }
}

void Egress::record_drops() {
  const auto counts = read_drop_counts(gateway_.filter.get());
  if (!counts) {
    log::error("{}", counts.error().message());
    return;
  }
  json record = {{"event", "dropped"}, {"decision", "refuse"}};
  bool any = false;
  for (const auto& [kind, count] : *counts) {
    record[kind] = count - dropped_[kind];
    any |= count != dropped_[kind];
  }
  dropped_ = *counts;
  if (any) keep(record);
}

// One message, one record. What the proxy says is checked like anything that the guest could have
// had a hand in.
Task<void> Egress::keep_records(Fd socket) {
  ::fcntl(socket.get(), F_SETFL, O_NONBLOCK);
  asio::posix::stream_descriptor descriptor(io_, socket.release());
  std::string message(kMostRecord, '\0');
  while (true) {
    const auto [error, got] = co_await descriptor.async_read_some(
        asio::buffer(message), asio::as_tuple(asio::use_awaitable));
    if (error) co_return;
    const json record = json::parse(message.substr(0, got), nullptr, false);
    if (!record.is_object()) {
      log::warn("the proxy sent a record that cannot be understood ({} bytes)", got);
      continue;
    }
    keep(record);
  }
}

json Egress::status() const {
  json status = {{"mode", to_string(mode_)}};
  if (mode_ == NetworkMode::kOff) return status;
  for (const auto& part : parts_) {
    if (!part.child) continue;
    status[part.child->name()] = {{"running", part.child->running()},
                                  {"restarts", part.restarts},
                                  {"last_end", part.last_end}};
  }
  status["git"] = git_.status();
  return status;
}

std::vector<std::shared_ptr<SupervisedChild>> Egress::children() const {
  std::vector<std::shared_ptr<SupervisedChild>> running;
  for (const auto& part : parts_) {
    if (part.child && part.child->running()) running.push_back(part.child);
  }
  return running;
}

}  // namespace agent_vm

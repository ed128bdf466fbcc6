#include "net/relay.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <unordered_map>

#include "base/fd.h"
#include "base/log.h"

namespace agent_vm {
namespace {

constexpr std::size_t kBufferBytes = 65536;
// Two descriptors each; stays below the relay's limit of open files.
constexpr std::size_t kMostConnections = 400;

// One direction of a connection: bytes read from one socket and not yet written to the other.
struct Direction {
  std::array<char, kBufferBytes> bytes;
  std::size_t begin = 0;
  std::size_t end = 0;
  bool source_ended = false;  // EOF was read
  bool closed = false;        // ... and passed on

  bool empty() const { return begin == end; }
  bool wants_read() const { return !source_ended && empty(); }
};

struct Connection {
  Fd host;
  Fd guest;
  bool connected = false;  // the connection to the guest
  Direction to_guest;
  Direction to_host;
};

// What an epoll event is about: a listener, or one end of a connection.
struct Watch {
  const RelayRoute* route = nullptr;
  Connection* connection = nullptr;
};

class Relay {
 public:
  Relay(const std::vector<RelayRoute>& routes, int activity)
      : routes_(routes), activity_(activity) {}

  Status run() {
    epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll_) return fail_errno(errno, "cannot make an epoll descriptor");
    for (const auto& route : routes_) {
      watches_[route.listener] = {.route = &route};
      TRY(set_interest(route.listener, EPOLLIN, EPOLL_CTL_ADD));
    }
    while (true) {
      std::array<epoll_event, 64> events{};
      const int count =
          ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
      if (count < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for events");
      for (int i = 0; i < count; ++i) handle(events.at(static_cast<std::size_t>(i)).data.fd);
    }
  }

 private:
  Status set_interest(int fd, std::uint32_t events, int operation = EPOLL_CTL_MOD) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_.get(), operation, fd, &event) != 0)
      return fail_errno(errno, "epoll_ctl");
    return {};
  }

  void handle(int fd) {
    // An earlier event of the same batch may have ended this one's connection.
    const auto found = watches_.find(fd);
    if (found == watches_.end()) return;
    if (found->second.route != nullptr) {
      accept_all(*found->second.route);
    } else {
      serve(*found->second.connection);
    }
  }

  void accept_all(const RelayRoute& route) {
    while (true) {
      Fd host(::accept4(route.listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!host) return;
      // Over the limit the newest is refused at once; the others keep working.
      if (connections_.size() >= kMostConnections) continue;
      if (const auto started = start(std::move(host), route); !started) {
        log::warn("{}", started.error().message());
      }
    }
  }

  Status start(Fd host, const RelayRoute& route) {
    auto connection = std::make_unique<Connection>();
    connection->host = std::move(host);
    connection->guest = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!connection->guest) return fail_errno(errno, "cannot make a socket");
    const int on = 1;
    ::setsockopt(connection->host.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(connection->guest.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(route.port);
    ::inet_pton(AF_INET, route.address.c_str(), &address.sin_addr);
    if (::connect(connection->guest.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) !=
            0 &&
        errno != EINPROGRESS) {
      return fail_errno(errno, "cannot connect to the guest's port {}", route.port);
    }
    Connection* raw = connection.get();
    watches_[raw->guest.get()] = {.connection = raw};
    TRY(set_interest(raw->guest.get(), EPOLLOUT, EPOLL_CTL_ADD));
    connections_[raw] = std::move(connection);
    tell_activity();
    return {};
  }

  void serve(Connection& connection) {
    if (!connection.connected) {
      int error = 0;
      socklen_t size = sizeof error;
      ::getsockopt(connection.guest.get(), SOL_SOCKET, SO_ERROR, &error, &size);
      // No answer to give at this level: the client sees its connection closed.
      if (error != 0) return end(connection);
      sockaddr_in peer{};
      size = sizeof peer;
      if (::getpeername(connection.guest.get(), reinterpret_cast<sockaddr*>(&peer), &size) != 0)
        return;
      connection.connected = true;
      // Only now: a client that leaves early would otherwise wake us without end (EPOLLHUP cannot
      // be masked) while the guest takes its time.
      watches_[connection.host.get()] = {.connection = &connection};
      if (!set_interest(connection.host.get(), 0, EPOLL_CTL_ADD)) return end(connection);
    }
    if (!pump(connection.host.get(), connection.guest.get(), connection.to_guest) ||
        !pump(connection.guest.get(), connection.host.get(), connection.to_host) ||
        (connection.to_guest.closed && connection.to_host.closed)) {
      return end(connection);
    }
    const auto interest = [](const Direction& from_here, const Direction& to_here) {
      return (from_here.wants_read() ? EPOLLIN : 0U) | (to_here.empty() ? 0U : EPOLLOUT);
    };
    if (!set_interest(connection.host.get(), interest(connection.to_guest, connection.to_host)) ||
        !set_interest(connection.guest.get(), interest(connection.to_host, connection.to_guest))) {
      end(connection);
    }
  }

  // Moves what can be moved now. False when the connection is broken.
  static bool pump(int from, int to, Direction& direction) {
    while (true) {
      while (!direction.empty()) {
        const ssize_t put = ::send(to, direction.bytes.data() + direction.begin,
                                   direction.end - direction.begin, MSG_NOSIGNAL);
        if (put < 0) return errno == EAGAIN || errno == EINTR;
        direction.begin += static_cast<std::size_t>(put);
      }
      if (direction.source_ended) {
        if (!direction.closed) ::shutdown(to, SHUT_WR);
        direction.closed = true;
        return true;
      }
      const ssize_t got = ::recv(from, direction.bytes.data(), direction.bytes.size(), 0);
      if (got < 0) return errno == EAGAIN || errno == EINTR;
      direction.begin = 0;
      direction.end = static_cast<std::size_t>(got);
      direction.source_ended = got == 0;
    }
  }

  void end(Connection& connection) {
    watches_.erase(connection.host.get());
    watches_.erase(connection.guest.get());
    connections_.erase(&connection);
    tell_activity();
  }

  void tell_activity() const {
    if (activity_ < 0) return;
    const std::string count = std::to_string(connections_.size());
    // A reader that is behind misses a number, never us.
    static_cast<void>(::send(activity_, count.data(), count.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
  }

  const std::vector<RelayRoute>& routes_;
  int activity_;
  Fd epoll_;
  std::unordered_map<int, Watch> watches_;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> connections_;
};

}  // namespace

Status run_relay(const std::vector<RelayRoute>& routes, int activity) {
  return Relay(routes, activity).run();
}

}  // namespace agent_vm

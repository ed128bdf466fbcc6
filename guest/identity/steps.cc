#include "identity/steps.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "base/fd.h"
#include "base/text.h"
#include "identity/disk.h"
#include "identity/events.h"
#include "identity/program.h"

namespace agent_vm {
namespace {

constexpr const char* kInterface = "eth0";
constexpr const char* kWorkspace = "/workspace";
constexpr gid_t kDev = 1000;
constexpr const char* kAuthorityFile = "/etc/ssl/certs/agent-vm.pem";
constexpr const char* kTemplateMark = "/run/agent-vm/template";

// What most files are at a VM's second start.
bool is_file(const std::string& path, std::string_view content, mode_t mode, gid_t group) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode) ||
      (status.st_mode & 07777U) != mode || status.st_uid != 0 || status.st_gid != group ||
      status.st_nlink != 1 || status.st_size != std::ssize(content)) {
    return false;
  }
  std::string there(content.size(), '\0');
  return ::read(fd.get(), there.data(), there.size()) == std::ssize(content) && there == content;
}

// Replaces a file as a whole. Everything here is written before anything that reads it starts.
Status write_file(const std::string& path, std::string_view content, mode_t mode, gid_t group = 0) {
  if (is_file(path, content, mode, group)) return {};
  const std::string temporary = path + ".new";
  ::unlink(temporary.c_str());
  const Fd fd(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd) return fail_errno(errno, "cannot make {}", temporary);
  while (!content.empty()) {
    const ssize_t put = ::write(fd.get(), content.data(), content.size());
    if (put < 0) return fail_errno(errno, "cannot write {}", temporary);
    content.remove_prefix(static_cast<std::size_t>(put));
  }
  if (::fchown(fd.get(), 0, group) != 0 || ::fchmod(fd.get(), mode) != 0 ||
      ::rename(temporary.c_str(), path.c_str()) != 0) {
    return fail_errno(errno, "cannot install {}", path);
  }
  return {};
}

Result<std::string> read_file(const char* path, std::size_t most) {
  const Fd fd(::open(path, O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open {}", path);
  std::string content;
  std::array<char, 65536> buffer{};
  while (true) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0) return fail_errno(errno, "cannot read {}", path);
    if (got == 0) return content;
    content.append(buffer.data(), static_cast<std::size_t>(got));
    if (content.size() > most) return fail("{} is larger than {} bytes", path, most);
  }
}

std::string with_newline(std::string text) {
  if (!text.ends_with('\n')) text += '\n';
  return text;
}

sockaddr as_sockaddr(std::uint32_t address_in_network_order) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = address_in_network_order;
  sockaddr out{};
  std::memcpy(&out, &in, sizeof out);
  return out;
}

Result<std::uint32_t> parse_address(const std::string& text) {
  in_addr address{};
  if (::inet_pton(AF_INET, text.c_str(), &address) != 1)
    return fail("'{}' is not an IPv4 address", text);
  return address.s_addr;
}

Status set_mac_address(int socket, const std::string& mac) {
  ifreq request{};
  std::strncpy(request.ifr_name, kInterface, IFNAMSIZ - 1);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  auto* bytes = reinterpret_cast<unsigned char*>(request.ifr_hwaddr.sa_data);
  if (std::sscanf(mac.c_str(), "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &bytes[0], &bytes[1], &bytes[2],
                  &bytes[3], &bytes[4], &bytes[5]) != 6) {
    return fail("'{}' is not a MAC address", mac);
  }
  if (::ioctl(socket, SIOCSIFHWADDR, &request) != 0)
    return fail_errno(errno, "cannot set the MAC address");
  return {};
}

}  // namespace

Status add_entropy(std::string_view bytes) {
  constexpr std::size_t kMost = 512;
  if (bytes.size() < 32 || bytes.size() > kMost) {
    return fail("{} bytes of entropy: expected 32 to {}", bytes.size(), kMost);
  }
  // rand_pool_info ends in a flexible array: header and bytes in one buffer.
  std::vector<int> pool((sizeof(rand_pool_info) + kMost) / sizeof(int));
  auto* info = reinterpret_cast<rand_pool_info*>(pool.data());
  info->entropy_count = static_cast<int>(bytes.size() * 8);
  info->buf_size = static_cast<int>(bytes.size());
  std::memcpy(info->buf, bytes.data(), bytes.size());
  const Fd random(::open("/dev/urandom", O_WRONLY | O_CLOEXEC));
  // Added bytes only mix into the pool; the reseed is what changes the generator's output at once.
  if (!random || ::ioctl(random.get(), RNDADDENTROPY, info) != 0 ||
      ::ioctl(random.get(), RNDRESEEDCRNG) != 0) {
    return fail_errno(errno, "cannot reseed the kernel's random numbers");
  }
  return {};
}

Status set_clock(std::int64_t nanoseconds) {
  const timespec now{static_cast<time_t>(nanoseconds / 1'000'000'000),
                     static_cast<long>(nanoseconds % 1'000'000'000)};
  if (::clock_settime(CLOCK_REALTIME, &now) != 0) return fail_errno(errno, "cannot set the clock");
  return {};
}

Status take_precedence() {
  const sched_param lowest{.sched_priority = 1};
  if (::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest) != 0)
    return fail_errno(errno, "cannot take precedence");
  return {};
}

Status give_precedence_back() {
  const sched_param none{.sched_priority = 0};
  if (::sched_setscheduler(0, SCHED_OTHER, &none) != 0)
    return fail_errno(errno, "cannot give precedence back");
  return {};
}

Status renew_boot_id() {
  if (::access(kTemplateMark, F_OK) != 0) return {};
  constexpr const char* kBootId = "/proc/sys/kernel/random/boot_id";
  constexpr const char* kOwn = "/run/agent-vm/boot-id";
  const Fd source(::open("/proc/sys/kernel/random/uuid", O_RDONLY | O_CLOEXEC));
  std::array<char, 37> uuid{};
  if (!source || ::read(source.get(), uuid.data(), uuid.size()) != std::ssize(uuid))
    return fail_errno(errno, "cannot make a boot id");
  // Of the VM that this one was forked from.
  ::umount2(kBootId, MNT_DETACH);
  TRY(write_file(kOwn, {uuid.data(), uuid.size()}, 0444));
  if (::mount(kOwn, kBootId, nullptr, MS_BIND, nullptr) != 0)
    return fail_errno(errno, "cannot set the boot id");
  return {};
}

Status set_hostname(const std::string& hostname) {
  if (::sethostname(hostname.data(), hostname.size()) != 0)
    return fail_errno(errno, "cannot set the host name");
  TRY(write_file("/etc/hostname", hostname + "\n", 0644));
  return write_file("/etc/hosts", fmt::format("127.0.0.1 localhost\n127.0.1.1 {}\n", hostname),
                    0644);
}

Status set_machine_id(const std::string& machine_id) {
  if (machine_id.size() != 32 ||
      machine_id.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return fail("'{}' is not a machine id", machine_id);
  }
  // systemd covers an empty /etc/machine-id with a transient one at boot.
  ::umount2("/etc/machine-id", MNT_DETACH);
  return write_file("/etc/machine-id", machine_id + "\n", 0444);
}

Status configure_network(const Identity& identity) {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "cannot make a socket");
  ifreq request{};
  std::strncpy(request.ifr_name, kInterface, IFNAMSIZ - 1);
  if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0)
    return fail_errno(errno, "there is no {}", kInterface);
  request.ifr_flags = static_cast<short>(request.ifr_flags & ~IFF_UP);
  ::ioctl(socket.get(), SIOCSIFFLAGS, &request);
  TRY(set_mac_address(socket.get(), identity.mac_address));
  request.ifr_addr = as_sockaddr(TRY(parse_address(identity.address)));
  if (::ioctl(socket.get(), SIOCSIFADDR, &request) != 0)
    return fail_errno(errno, "cannot set the address");
  if (identity.prefix < 1 || identity.prefix > 30)
    return fail("'{}' is not a prefix length", identity.prefix);
  request.ifr_netmask = as_sockaddr(htonl(~0U << static_cast<unsigned>(32 - identity.prefix)));
  if (::ioctl(socket.get(), SIOCSIFNETMASK, &request) != 0)
    return fail_errno(errno, "cannot set the netmask");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0)
    return fail_errno(errno, "cannot bring {} up", kInterface);
  rtentry route{};
  route.rt_dst = as_sockaddr(0);
  route.rt_genmask = as_sockaddr(0);
  route.rt_gateway = as_sockaddr(TRY(parse_address(identity.gateway)));
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  if (::ioctl(socket.get(), SIOCADDRT, &route) != 0 && errno != EEXIST) {
    return fail_errno(errno, "cannot set the default route");
  }
  return {};
}

Status install_ssh_keys(const Identity& identity) {
  TRY(write_file("/etc/ssh/ssh_host_ed25519_key", with_newline(identity.ssh_host_key), 0600));
  TRY(write_file("/etc/ssh/ssh_host_ed25519_key.pub", with_newline(identity.ssh_host_key_public),
                 0644));
  return write_file("/etc/ssh/authorized_keys", with_newline(identity.authorized_key), 0644);
}

namespace {

// Chromium asks no store of the system's, but takes CAs by policy: their DER, in base64, which is
// what stands between the two lines of PEM.
Status tell_chromium(const std::string& certificate) {
  std::string der;
  for (const auto& line : split_lines(certificate)) {
    if (!line.starts_with("-----")) der += line;
  }
  const std::string folder = "/etc/chromium/policies/managed";
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) return fail("cannot make {}: {}", folder, failed.message());
  return write_file(folder + "/agent-vm.json",
                    fmt::format("{{\"CACertificates\": [\"{}\"]}}\n", der), 0644);
}

// Java's store can be written only by Java, which takes seconds. Debian's own hook does it, where
// there is a Java, beside the rest of the start.
Status tell_java() {
  constexpr const char* kHook = "/etc/ca-certificates/update.d/jks-keystore";
  if (::access(kHook, X_OK) != 0) return {};
  return start_program({"/bin/sh", "-c", fmt::format("echo +{} | {}", kAuthorityFile, kHook)});
}

}  // namespace

// What update-ca-certificates would make of it, in milliseconds: the folder of hashed links and the
// bundle, and the source from which it would make them again.
Status install_authority(const Identity& identity) {
  constexpr const char* kBundle = "/etc/ssl/certs/ca-certificates.crt";
  constexpr std::string_view kBegin = "# agent-vm: the CA of this VM\n";
  constexpr std::size_t kLargest = 8U << 20U;
  if (identity.authority_hash.size() != 8 ||
      identity.authority_hash.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return fail("'{}' is not the hash of a certificate", identity.authority_hash);
  }
  if (::mkdir("/etc/agent-vm", 0755) != 0 && errno != EEXIST)
    return fail_errno(errno, "cannot make /etc/agent-vm");
  const std::string certificate = with_newline(identity.authority);
  const bool is_new = !is_file(kAuthorityFile, certificate, 0644, 0);
  ::mkdir("/usr/local/share/ca-certificates", 0755);
  for (const auto* path :
       {"/etc/agent-vm/ca.crt", "/usr/local/share/ca-certificates/agent-vm.crt", kAuthorityFile}) {
    TRY(write_file(path, certificate, 0644));
  }
  const std::string link = fmt::format("/etc/ssl/certs/{}.0", identity.authority_hash);
  std::error_code none;
  if (std::filesystem::read_symlink(link, none) != "agent-vm.pem") {
    ::unlink(link.c_str());
    if (::symlink("agent-vm.pem", link.c_str()) != 0)
      return fail_errno(errno, "cannot link {}", link);
  }
  std::string bundle = TRY(read_file(kBundle, kLargest));
  // Ours is last: of an earlier identity step, and in a copy that somebody made of this VM.
  if (const auto at = bundle.find(kBegin); at != std::string::npos) bundle.resize(at);
  TRY(write_file(kBundle, bundle + std::string(kBegin) + certificate, 0644));
  TRY(tell_chromium(certificate));
  if (is_new) TRY(tell_java());
  return {};
}

Status configure_packages(const PackageSettings& settings) {
  for (const auto& [path, content] :
       {std::pair{"/etc/apt/sources.list.d/agent-vm.sources", &settings.apt_sources},
        std::pair{"/etc/apt/apt.conf.d/50agent-vm", &settings.apt_settings},
        std::pair{"/etc/npmrc", &settings.npm}, std::pair{"/etc/pip.conf", &settings.pip}}) {
    TRY(write_file(path, *content, 0644));
  }
  return {};
}

Status install_placeholders(const std::map<std::string, std::string>& placeholders) {
  constexpr const char* kServices = "/etc/agent-vm/placeholders.env";
  std::string lines;
  for (const auto& [name, placeholder] : placeholders)
    lines += fmt::format("{}={}\n", name, placeholder);
  if (lines.empty() && ::access(kServices, F_OK) != 0) return {};
  TRY(write_file(kServices, lines, 0644));
  // For sshd. `dev` owns the folder and may have put anything in its place: no link is followed.
  const Fd folder(::open("/home/dev/.ssh", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) return fail_errno(errno, "cannot open the folder .ssh of dev");
  return write_file(fmt::format("/proc/self/fd/{}/environment", folder.get()), lines, 0644);
}

Status install_mcp(const Identity& identity) {
  TRY(write_file("/etc/agent-vm/mcp.json", with_newline(identity.mcp_config), 0644));
  return write_file("/etc/agent-vm/mcp-token", with_newline(identity.mcp_token), 0640, kDev);
}

Status set_sudo(bool allowed) {
  constexpr const char* kRule = "/etc/sudoers.d/agent-vm-dev";
  if (allowed) return write_file(kRule, "dev ALL=(ALL) NOPASSWD: ALL\n", 0440);
  if (::unlink(kRule) != 0 && errno != ENOENT) return fail_errno(errno, "cannot remove {}", kRule);
  return {};
}

Status mount_workspace(const std::string& tag) {
  return retry_at_events(fmt::format("the shared folder '{}'", tag), [&]() -> Result<bool> {
    // The share holds whatever the guest put there: nothing in it becomes privileged by being run.
    if (::mount(tag.c_str(), kWorkspace, "virtiofs", MS_NOSUID | MS_NODEV, nullptr) == 0)
      return true;
    if (errno == EBUSY) return true;  // mounted already: a second identity step
    if (errno == EINVAL || errno == ENODEV) return false;
    return fail_errno(errno, "cannot mount {}", kWorkspace);
  });
}

Status lock_modules() {
  constexpr const char* kLock = "/proc/sys/kernel/modules_disabled";
  if (TRY(read_file(kLock, 16)) == "1\n") return {};
  const ProgramOutput needed =
      TRY(run_program({"/usr/sbin/modprobe", "--all", "virtiofs", "overlay"}));
  if (!needed.ok)
    return tl::unexpected(
        Error(ErrorKind::kFailed, "cannot load kernel modules").with_evidence(needed.lines));
  // What packages of the image ask for. A module that this kernel does not have matters to nobody
  // else.
  TRY(run_program({"/usr/lib/systemd/systemd-modules-load"}));
  const Fd lock(::open(kLock, O_WRONLY | O_CLOEXEC));
  if (!lock || ::write(lock.get(), "1", 1) != 1)
    return fail_errno(errno, "cannot lock the kernel's modules");
  return {};
}

Status start_ahead() {
  const std::string key = "/etc/ssh/ssh_host_ed25519_key";
  for (const auto& argv : {
           std::vector<std::string>{"/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                                    key},
           {"/usr/bin/systemctl", "start", "ssh.service"},
           {"/usr/lib/agent-vm/agent-mcp", "--version"},
           {"/usr/sbin/sshd", "-t"},
           {"/bin/bash", "-c", "cat /dev/null; git --version; test -x /usr/bin/node"},
       }) {
    const ProgramOutput ran = TRY(run_program(argv));
    if (!ran.ok)
      return tl::unexpected(
          Error(ErrorKind::kFailed, fmt::format("{} failed", argv[0])).with_evidence(ran.lines));
  }
  // Gone from the disk; sshd's listener has it in memory and gives it to nobody.
  ::unlink(key.c_str());
  ::unlink((key + ".pub").c_str());
  return {};
}

Status write_out() {
  // Every guest that is resumed would write it again.
  ::sync();
  return {};
}

Status mark_as_template() {
  if (::mkdir("/run/agent-vm", 0755) != 0 && errno != EEXIST)
    return fail_errno(errno, "cannot make /run/agent-vm");
  return write_file(kTemplateMark, "", 0444);
}

Status await_boot() {
  // Its exit status tells whether some unit failed, which a template shares with every boot.
  TRY(run_program({"/usr/bin/systemctl", "is-system-running", "--wait"}));
  return {};
}

Status stop_outdated_sshd() {
  // The identity step starts it again, as a unit.
  if (changed_on_disk("etc/ssh/sshd_config") || changed_on_disk("etc/ssh/sshd_config.d") ||
      changed_on_disk("usr/sbin/sshd"))
    TRY(run_program({"/usr/bin/systemctl", "stop", "ssh.service"}));
  return {};
}

Status adopt_changes() {
  if (!changed_on_disk("etc/systemd") && !changed_on_disk("usr/lib/systemd")) return {};
  TRY(run_program({"/usr/bin/systemctl", "daemon-reload"}));
  TRY(run_program({"/usr/bin/systemctl", "start", "--no-block", "default.target"}));
  return {};
}

Status start_units(const std::vector<std::string>& units) {
  if (units.empty()) return {};
  std::vector<std::string> argv{"/usr/bin/systemctl", "start"};
  argv.insert(argv.end(), units.begin(), units.end());
  ProgramOutput started = TRY(run_program(argv));
  if (started.ok) return {};
  // systemctl says little; the journal says why.
  std::vector<std::string> journal{"/usr/bin/journalctl", "--no-pager", "-n", "30"};
  for (const auto& unit : units) journal.push_back("--unit=" + unit);
  auto evidence = std::move(started.lines);
  if (const auto shown = run_program(journal)) {
    evidence.insert(evidence.end(), shown->lines.begin(), shown->lines.end());
  }
  return tl::unexpected(Error(ErrorKind::kFailed, fmt::format("{} failed", join(argv, " ")))
                            .with_evidence(std::move(evidence)));
}

}  // namespace agent_vm

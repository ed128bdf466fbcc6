// /init of the initramfs: makes the root disk visible, mounts it, and hands over to systemd.
//
// It does what the image's kernel cannot do by itself, whose virtio drivers are modules, and
// nothing else: no shell, no udev, no choice. An emulated guest pays for every instruction here,
// and for every byte of this program that is unpacked. When a step fails it says which and ends,
// and the kernel panics with that line as the last one on the console.
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace {

// A root disk that is not there by then never will be: virtio devices are found at once.
constexpr int kRootDeviceTimeoutMs = 20'000;

// EXT4_IOC_RESIZE_FS, which is not in the kernel's exported headers.
constexpr unsigned long kExt4ResizeFs = _IOW('f', 16, std::uint64_t);

void warn(std::string_view what, std::string_view which, int error) {
  std::string line = "agent-vm-init: ";
  line.append(what).append(" ").append(which);
  if (error != 0)
    line.append(": ").append(std::strerror(error));  // NOLINT(concurrency-mt-unsafe): one thread
  line.append("\n");
  static_cast<void>(!::write(STDERR_FILENO, line.data(), line.size()));
}

[[noreturn]] void die(std::string_view what, std::string_view which, int error) {
  warn(what, which, error);
  ::_exit(1);
}

void mount_or_die(const char* source, const char* target, const char* type, unsigned long flags,
                  const char* options = nullptr) {
  if (::mkdir(target, 0755) != 0 && errno != EEXIST) die("cannot make", target, errno);
  if (::mount(source, target, type, flags, options) != 0) die("cannot mount", source, errno);
}

std::string read_file(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die("cannot open", path, errno);
  std::string content;
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0) die("cannot read", path, errno);
    if (got == 0) break;
    content.append(buffer.data(), static_cast<std::size_t>(got));
  }
  ::close(fd);
  return content;
}

// Takes the first word, up to one of `separators`, off the front of `text`.
std::string_view next_word(std::string_view& text, std::string_view separators) {
  const auto begin = text.find_first_not_of(separators);
  if (begin == std::string_view::npos) {
    text = {};
    return {};
  }
  text.remove_prefix(begin);
  const auto word = text.substr(0, text.find_first_of(separators));
  text.remove_prefix(word.size());
  return word;
}

// /modules.list names one module a line, each after those that it needs.
void load_modules() {
  const std::string list = read_file("/modules.list");
  std::string_view rest = list;
  for (auto name = next_word(rest, "\n"); !name.empty(); name = next_word(rest, "\n")) {
    const std::string path(name);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) die("cannot open", path, errno);
    if (::syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST) {
      die("cannot load", path, errno);
    }
    ::close(fd);
  }
}

struct BootOptions {
  std::string root = "/dev/vda";
  std::string init = "/sbin/init";
  bool read_only = false;
  bool probe = false;  // only show that the kernel runs: how the host finds out whether KVM works
};

BootOptions read_options() {
  const std::string line = read_file("/proc/cmdline");
  BootOptions options;
  std::string_view rest = line;
  for (auto word = next_word(rest, " \n"); !word.empty(); word = next_word(rest, " \n")) {
    if (word.starts_with("root=")) options.root = word.substr(5);
    if (word.starts_with("init=")) options.init = word.substr(5);
    if (word == "agent-vm.probe") options.probe = true;
    if (word == "ro") options.read_only = true;
    if (word == "rw") options.read_only = false;
  }
  return options;
}

// The line is what src/launch/kvm_probe.cc waits for.
[[noreturn]] void end_probe() {
  constexpr std::string_view kLine = "agent-vm-init: the kernel runs\n";
  static_cast<void>(!::write(STDOUT_FILENO, kLine.data(), kLine.size()));
  ::reboot(RB_AUTOBOOT);
  die("cannot reboot", "", errno);
}

// devtmpfs announces a new device by making its node.
void wait_for(const std::string& device) {
  const int watch = ::inotify_init1(IN_CLOEXEC);
  if (watch < 0 || ::inotify_add_watch(watch, "/dev", IN_CREATE) < 0) {
    die("cannot watch", "/dev", errno);
  }
  while (::access(device.c_str(), F_OK) != 0) {
    pollfd ready{watch, POLLIN, 0};
    if (::poll(&ready, 1, kRootDeviceTimeoutMs) == 0) die("no root device", device, 0);
    alignas(inotify_event) std::array<char, 4096> events{};
    static_cast<void>(!::read(watch, events.data(), events.size()));
  }
  ::close(watch);
}

// A VM's disk may be larger than the image. ext4 grows while it is mounted; when it is as large as
// the disk already, nothing happens. A guest with less room than it could have still boots.
void grow_root(const char* device) {
  const int disk = ::open(device, O_RDONLY | O_CLOEXEC);
  const int root = ::open("/root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct statfs status {};
  std::uint64_t bytes = 0;
  if (disk >= 0 && root >= 0 && ::ioctl(disk, BLKGETSIZE64, &bytes) == 0 &&
      ::fstatfs(root, &status) == 0 && status.f_bsize > 0) {
    std::uint64_t blocks = bytes / static_cast<std::uint64_t>(status.f_bsize);
    if (::ioctl(root, kExt4ResizeFs, &blocks) != 0) warn("cannot grow", device, errno);
  }
  ::close(root);
  ::close(disk);
}

// The initramfs stays mounted below the new root for ever, in memory: empty it.
void discard_own_files() {
  const std::string list = read_file("/modules.list");
  std::string_view rest = list;
  for (auto name = next_word(rest, "\n"); !name.empty(); name = next_word(rest, "\n")) {
    ::unlink(std::string(name).c_str());
  }
  ::unlink("/modules.list");
  ::unlink("/init");
}

void switch_root(const std::string& init) {
  for (const char* name : {"/dev", "/proc", "/sys"}) {
    const std::string target = std::string("/root") + name;
    if (::mount(name, target.c_str(), nullptr, MS_MOVE, nullptr) != 0) {
      die("cannot move", name, errno);
    }
  }
  discard_own_files();
  if (::chdir("/root") != 0 || ::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 ||
      ::chroot(".") != 0 || ::chdir("/") != 0) {
    die("cannot enter", "the root file system", errno);
  }
  const std::array<const char*, 2> argv{init.c_str(), nullptr};
  const std::array<const char*, 3> environment{
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=linux", nullptr};
  ::execve(init.c_str(), const_cast<char* const*>(argv.data()),
           const_cast<char* const*>(environment.data()));
  die("cannot start", init, errno);
}

}  // namespace

int main() {
  mount_or_die("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
  mount_or_die("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC);
  mount_or_die("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC);
  const BootOptions options = read_options();
  if (options.probe) end_probe();
  load_modules();
  wait_for(options.root);
  const unsigned long access = options.read_only ? MS_RDONLY : 0;
  mount_or_die(options.root.c_str(), "/root", "ext4", MS_NOATIME | access);
  if (!options.read_only) grow_root(options.root.c_str());
  switch_root(options.init);
}

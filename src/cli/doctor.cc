#include "cli/doctor.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/text.h"
#include "confine/jail.h"
#include "confine/user_namespace.h"
#include "image/store.h"
#include "launch/accelerator.h"
#include "launch/egress.h"
#include "launch/host_programs.h"
#include "os/files.h"
#include "os/run.h"

namespace agent_vm {
namespace {

using Level = Check::Level;

constexpr std::uint64_t kGiB = 1ULL << 30;

bool in_path(const std::string& program) {
  const char* path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): single-threaded
  for (const auto& folder : split(path != nullptr ? path : "/usr/bin:/bin", ':')) {
    if (!folder.empty() && ::access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

Check program(const std::string& name, const std::string& title, const std::string& package,
              Level without, const std::string& purpose) {
  if (in_path(name)) return {name, title, Level::kOk, name + " is installed", ""};
  return {name, title, without, fmt::format("{} is not installed: {}", name, purpose),
          "sudo apt-get install " + package};
}

Check from_error(std::string id, std::string title, Level level, const Error& error) {
  return {std::move(id), std::move(title), level, error.message(), error.hint()};
}

Check check_qemu(HostPrograms& programs, const Deadline& deadline) {
  if (const auto found = find_qemu(programs, deadline); !found) {
    return from_error("qemu", "QEMU", Level::kMissing, found.error());
  }
  return {"qemu", "QEMU", Level::kOk, fmt::format("{} ({})", programs.qemu_version, programs.qemu),
          ""};
}

Check check_virtiofsd(HostPrograms& programs, const Deadline& deadline) {
  if (const auto found = find_virtiofsd(programs, deadline); !found) {
    return from_error("virtiofsd", "virtiofsd", Level::kMissing, found.error());
  }
  return {
      "virtiofsd", "virtiofsd", Level::kOk,
      fmt::format("{} (the {} one)", programs.virtiofsd, programs.virtiofsd_is_rust ? "Rust" : "C"),
      ""};
}

std::optional<Image> newest_image() {
  const auto store = ImageStore::of_user();
  if (!store) return std::nullopt;
  const auto entries = store->list();
  if (!entries) return std::nullopt;
  for (const auto& entry : *entries) {
    if (!entry.manifest) continue;
    if (auto image = store->open_image(entry.key)) return std::move(*image);
  }
  return std::nullopt;
}

// As a start looks for it.
Check check_proxy() {
  if (const auto ready = check_egress(); !ready)
    return from_error("proxy", "Proxy", Level::kWarning, ready.error());
  return {"proxy", "Proxy", Level::kOk, "mitmproxy is installed", ""};
}

Check check_image(const std::optional<Image>& image) {
  if (image) return {"image", "Image", Level::kOk, "newest: " + image->key, ""};
  return {"image", "Image", Level::kWarning, "none has been built yet", "agent-vm image build"};
}

// QEMU runs under an id of its own and keeps our groups, so /dev/kvm must be open to a group of
// ours.
std::string mend_kvm_access() {
  struct stat info {};
  if (::stat("/dev/kvm", &info) != 0) return "";
  constexpr mode_t kOthers = S_IROTH | S_IWOTH;
  constexpr mode_t kGroup = S_IRGRP | S_IWGRP;
  if ((info.st_mode & kOthers) == kOthers) return "";
  if ((info.st_mode & kGroup) != kGroup) return "sudo chmod 0666 /dev/kvm";
  if (::geteuid() == 0 || ::group_member(info.st_gid) != 0) return "";
  std::array<char, 4096> buffer{};
  group entry{};
  group* found = nullptr;
  if (::getgrgid_r(info.st_gid, &entry, buffer.data(), buffer.size(), &found) != 0 ||
      found == nullptr) {
    return "";
  }
  return fmt::format("sudo usermod -aG {} $USER, and log in again", found->gr_name);
}

Check check_kvm(const HostPrograms& programs, const std::optional<Image>& image,
                const Deadline& deadline) {
  constexpr const char* kWithout = "VMs run under emulation: slow, and not isolated by hardware";
  Check check{.id = "kvm", .title = "KVM", .level = Level::kWarning};
  if (::access("/dev/kvm", F_OK) != 0) {
    check.detail = fmt::format("there is no /dev/kvm; {}", kWithout);
    check.mend =
        "switch virtualization on in the firmware, then: sudo modprobe kvm_intel || "
        "sudo modprobe kvm_amd";
    return check;
  }
  if (programs.qemu.empty() || !image) {
    check.detail =
        "/dev/kvm is there, which proves nothing; it is tried with QEMU and the kernel of "
        "an image, once both are there";
    check.mend = programs.qemu.empty() ? "" : "agent-vm image build";
    return check;
  }
  const KvmProbe probe = probe_kvm(programs,
                                   {.kernel_path = image->directory + "/vmlinuz",
                                    .initramfs_path = image->directory + "/initrd.img",
                                    .image_key = image->key},
                                   deadline);
  if (probe.works) {
    return {"kvm", "KVM", Level::kOk, "works: the image's kernel ran on it", ""};
  }
  check.detail = fmt::format("{}; {}", escape_line(probe.reason), kWithout);
  check.mend = mend_kvm_access();
  return check;
}

Check check_ids(const Result<IdMap>& map) {
  Check check{.id = "subordinate-ids", .title = "Subordinate ids"};
  if (!map) return from_error(check.id, check.title, Level::kMissing, map.error());
  if (map->written_directly) {
    check.detail =
        fmt::format("not needed by root; guests get {} and up", map->outside_uid(kGuestRoot));
    return check;
  }
  for (const char* name : {"newuidmap", "newgidmap"}) {
    if (in_path(name)) continue;
    return {check.id, check.title, Level::kMissing, fmt::format("{} is not installed", name),
            "sudo apt-get install uidmap"};
  }
  check.detail = fmt::format("guest root is {}, dev is you", map->outside_uid(kGuestRoot));
  return check;
}

std::string sysctl(const std::string& name) {
  std::string path = name;
  for (char& c : path) c = c == '.' ? '/' : c;
  const auto text = read_file("/proc/sys/" + path, 4096);
  return text ? std::string(trim(*text)) : "";
}

// By making one, as a start does.
Check check_namespaces(const Result<IdMap>& map) {
  Check check{.id = "user-namespaces", .title = "User namespaces"};
  if (!map) {
    check.level = Level::kWarning;
    check.detail = "cannot be tried without subordinate ids";
    return check;
  }
  SpawnSpec spec;
  spec.argv = {"probe"};
  spec.main_instead_of_exec = [] { return 0; };
  auto child = spawn(in_user_namespace(std::move(spec), *map, kGuestRoot));
  if (child) static_cast<void>(child->wait());
  if (child) {
    check.detail = "can be made, with the VM's ids";
    return check;
  }
  check.level = Level::kMissing;
  check.detail = child.error().message();
  check.mend = child.error().hint();
  struct Setting {
    const char* name;
    const char* bad;
    const char* good;
  };
  for (const auto& [name, bad, good] :
       {Setting{"kernel.unprivileged_userns_clone", "0", "1"},
        Setting{"kernel.apparmor_restrict_unprivileged_userns", "1", "0"},
        Setting{"user.max_user_namespaces", "0", "15000"}}) {
    if (sysctl(name) == bad) check.mend = fmt::format("sudo sysctl -w {}={}", name, good);
  }
  return check;
}

Check check_tun() {
  constexpr const char* kDevice = "/dev/net/tun";
  const Fd device(::open(kDevice, O_RDWR | O_CLOEXEC));
  if (device) return {"tun", "tun device", Level::kOk, fmt::format("{} opens", kDevice), ""};
  const int error = errno;
  Check check{"tun", "tun device", Level::kMissing,
              fmt::format("cannot open {}: {}", kDevice, errno_text(error)), ""};
  check.mend =
      error == EACCES || error == EPERM ? "sudo chmod 0666 /dev/net/tun" : "sudo modprobe tun";
  return check;
}

Check check_memory() {
  constexpr std::uint64_t kComfortable = 3 * kGiB;  // a VM of the default size, and its host
  Check check{.id = "memory", .title = "Memory"};
  for (const auto& line : split_lines(read_file("/proc/meminfo", 65536).value_or(""))) {
    constexpr std::string_view kKey = "MemAvailable:";
    if (!line.starts_with(kKey)) continue;
    const auto words = split(trim(std::string_view(line).substr(kKey.size())), ' ');
    const std::uint64_t bytes = parse_unsigned(words[0]).value_or(0) * 1024;
    check.level = bytes < kComfortable ? Level::kWarning : Level::kOk;
    check.detail = format_size(bytes) + " available";
    if (check.level != Level::kOk) check.mend = "agent-vm create --memory 512M";
    return check;
  }
  check.level = Level::kWarning;
  check.detail = "cannot be found out";
  return check;
}

Check check_open_files() {
  constexpr std::uint64_t kComfortable = 200'000;  // a large repository, with its node_modules
  const std::uint64_t limit = allow_open_files();
  Check check{.id = "open-files", .title = "Open files"};
  check.detail = fmt::format("{} at most", limit);
  if (limit >= kComfortable) return check;
  check.level = Level::kWarning;
  check.detail +=
      "; a guest that looks at more files of its workspace is told 'Too many open files'";
  // By name: root is not one of pam_limits' "*".
  const passwd* user = ::getpwuid(::geteuid());  // NOLINT(concurrency-mt-unsafe)
  check.mend = fmt::format(
      "echo '{} hard nofile {}' | sudo tee /etc/security/limits.d/agent-vm.conf   (then log in "
      "again)",
      user != nullptr ? user->pw_name : "*", kMostShareFiles);
  return check;
}

Check check_disk(std::string path) {
  constexpr std::uint64_t kComfortable = 5 * kGiB;  // an image, and what building it needs
  // The nearest folder that exists: the state directory may not be there yet.
  std::error_code error;
  while (path.size() > 1 && !std::filesystem::exists(path, error)) {
    path = std::filesystem::path(path).parent_path().string();
  }
  Check check{.id = "disk", .title = "Disk"};
  struct statvfs info {};
  if (::statvfs(path.c_str(), &info) != 0) {
    check.level = Level::kWarning;
    check.detail = fmt::format("cannot examine {}: {}", escape_line(path), errno_text(errno));
    return check;
  }
  const std::uint64_t bytes = static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
  check.level = bytes < kComfortable ? Level::kWarning : Level::kOk;
  check.detail = fmt::format("{} free below {}", format_size(bytes), escape_line(path));
  if (check.level != Level::kOk) check.mend = "agent-vm image prune";
  return check;
}

}  // namespace

const char* to_string(Check::Level level) {
  switch (level) {
    case Level::kOk:
      return "ok";
    case Level::kWarning:
      return "warning";
    case Level::kMissing:
      break;
  }
  return "missing";
}

std::vector<Check> examine_machine(const std::string& state_path, const Deadline& deadline) {
  HostPrograms programs;
  std::vector<Check> checks;
  checks.push_back(check_qemu(programs, deadline));
  checks.push_back(check_virtiofsd(programs, deadline));
  checks.push_back(
      program("qemu-img", "qemu-img", "qemu-utils", Level::kMissing, "it makes the disks of VMs"));
  const auto image = newest_image();
  checks.push_back(check_kvm(programs, image, deadline));
  const auto map = system_id_map();
  checks.push_back(check_ids(map));
  checks.push_back(check_namespaces(map));
  checks.push_back(check_tun());
  checks.push_back(check_memory());
  checks.push_back(check_open_files());
  checks.push_back(check_disk(state_path));
  checks.push_back(
      program("ssh", "SSH", "openssh-client", Level::kMissing, "it is how VMs are reached"));
  checks.push_back(program("git", "git", "git", Level::kMissing, "it makes the workspaces"));
  checks.push_back(check_proxy());
  checks.push_back(program("mmdebstrap", "mmdebstrap", "mmdebstrap",
                           image ? Level::kWarning : Level::kMissing, "it builds images"));
  checks.push_back(check_image(image));
  return checks;
}

}  // namespace agent_vm

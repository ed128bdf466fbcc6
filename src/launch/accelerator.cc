#include "launch/accelerator.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/text.h"
#include "os/files.h"
#include "os/process_identity.h"
#include "os/run.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr const char* kLine =
    "agent-vm-init: the kernel runs";  // guest/initramfs/init.cc prints it
constexpr std::chrono::seconds kPatience{5};
constexpr const char* kCacheFile = "kvm-probe.json";

// QEMU runs under an id of its own and keeps only our groups: an access list that names the user
// does not help it.
Status reachable_in_a_jail(int device) {
  struct stat info {};
  if (::fstat(device, &info) != 0) return fail_errno(errno, "cannot examine /dev/kvm");
  constexpr mode_t kOthers = S_IROTH | S_IWOTH;
  constexpr mode_t kGroup = S_IRGRP | S_IWGRP;
  if ((info.st_mode & kOthers) == kOthers) return {};
  const bool member = ::geteuid() == 0 || ::group_member(info.st_gid) != 0;
  if ((info.st_mode & kGroup) == kGroup && member) return {};
  if ((info.st_mode & kGroup) != kGroup) {
    return fail("/dev/kvm is open to its owner alone, and QEMU runs under another id");
  }
  return fail(
      "/dev/kvm is not open to a group that you are in; run: sudo usermod -aG kvm $USER, and log "
      "in again");
}

KvmProbe try_kvm(const HostPrograms& programs, const ProbeKernel& kernel,
                 const Deadline& deadline) {
  const Fd device(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!device) return {false, fmt::format("cannot open /dev/kvm: {}", errno_text(errno))};
  if (const Status reachable = reachable_in_a_jail(device.get()); !reachable) {
    return {false, reachable.error().message()};
  }
  const auto output =
      run({.argv = {programs.qemu,
                    "-nodefaults",
                    "-no-user-config",
                    "-display",
                    "none",
                    "-no-reboot",
                    "-machine",
                    "q35",
                    "-accel",
                    "kvm",
                    "-cpu",
                    "host",
                    "-m",
                    "256",
                    "-serial",
                    "stdio",
                    "-kernel",
                    kernel.kernel_path,
                    "-initrd",
                    kernel.initramfs_path,
                    "-append",
                    "console=ttyS0 quiet panic=-1 agent-vm.probe",
                    "-sandbox",
                    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"},
           .deadline = deadline.sooner(kPatience)});
  if (!output) {
    if (output.error().kind() == ErrorKind::kTimeout) {
      return {false, fmt::format("KVM opens, but the guest's kernel did not run on it within {} s",
                                 kPatience.count())};
    }
    return {false, output.error().message()};
  }
  if (output->out.find(kLine) != std::string::npos) return {true, ""};
  const auto words = split_lines(output->error);
  return {false, fmt::format("QEMU {} with KVM: {}", output->exit.describe(),
                             words.empty() ? "it said nothing" : escape_line(words.back()))};
}

// The cache is a convenience: without a home for it the probe is made each time.
Result<Fd> cache_directory() {
  const char* xdg = std::getenv("XDG_CACHE_HOME");  // NOLINT(concurrency-mt-unsafe)
  const char* home = std::getenv("HOME");           // NOLINT(concurrency-mt-unsafe)
  if (xdg != nullptr && *xdg == '/') return open_private_directory(std::string(xdg) + "/agent-vm");
  if (home != nullptr && *home == '/')
    return open_private_directory(std::string(home) + "/.cache/agent-vm");
  return fail("no home directory");
}

json subject_of(const HostPrograms& programs, const ProbeKernel& kernel) {
  // Access can change within a boot (a group, a mode), and then the answer does, too.
  return {{"boot_id", boot_id().value_or("")},
          {"qemu", programs.qemu_version},
          {"image", kernel.image_key},
          {"accessible", ::access("/dev/kvm", R_OK | W_OK) == 0}};
}

}  // namespace

KvmProbe probe_kvm(const HostPrograms& programs, const ProbeKernel& kernel,
                   const Deadline& deadline) {
  const json subject = subject_of(programs, kernel);
  const auto cache = cache_directory();
  if (cache) {
    if (const auto text = read_file_at(cache->get(), kCacheFile, 65536)) {
      const json known = json::parse(*text, nullptr, false);
      if (known.is_object() && known.contains("subject") && known["subject"] == subject) {
        return {known.value("works", false), known.value("reason", "")};
      }
    }
  }
  log::info("probing KVM with the image's kernel");
  KvmProbe probe = try_kvm(programs, kernel, deadline);
  // A probe that our own deadline cut short says nothing.
  if (cache && !deadline.expired()) {
    const json entry = {{"subject", subject}, {"works", probe.works}, {"reason", probe.reason}};
    static_cast<void>(write_file_atomic(cache->get(), kCacheFile, entry.dump(2) + "\n", 0600));
  }
  return probe;
}

Result<AcceleratorChoice> choose_accelerator(Accel wanted, const HostPrograms& programs,
                                             const ProbeKernel& kernel, const Deadline& deadline) {
  AcceleratorChoice choice;
  if (wanted == Accel::kTcg) {
    choice.note = "software emulation, as configured: this VM is not isolated by hardware";
    return choice;
  }
  const KvmProbe probe = probe_kvm(programs, kernel, deadline);
  if (probe.works) {
    choice.accelerator = Accelerator::kKvm;
    return choice;
  }
  if (wanted == Accel::kKvm) {
    auto error = fail(ErrorKind::kMissing, "this VM wants KVM, and KVM does not work here: {}",
                      probe.reason);
    return tl::unexpected(std::move(error).value().with_hint(
        "agent-vm doctor shows more; agent-vm update --accel auto lets it run under emulation, "
        "without isolation by hardware"));
  }
  choice.note = fmt::format(
      "KVM does not work here ({}), so the VM is emulated: slow, and not isolated by hardware",
      probe.reason);
  return choice;
}

}  // namespace agent_vm

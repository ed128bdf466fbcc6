// Order matters here; each step needs a privilege that a later one gives up.
//
//   in the child    join the gateway's network namespace (needs CAP_SYS_ADMIN in the VM's user
//                   namespace), then leave that user namespace for one of the jail's own, and with
//                   it make the mount, IPC, UTS (and network) namespaces that it shall own
//   in the parent   write the id maps: the parent is in the outer namespace, with CAP_SETUID
//   in the child    open what shall be mounted while still being the user (only the user can look
//                   into the user's folders), become the jail's id (a tmpfs takes files only from
//                   ids that its namespace knows), build the root, pivot, drop capabilities
#include "confine/jail.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "os/files.h"

namespace agent_vm {
namespace {

constexpr const char* kNewRoot = "/tmp";  // exists everywhere; covered only in our own namespace

Status leave_namespaces(const Jail& jail, int gateway) {
  if (jail.network == Jail::Network::kGateway && ::setns(gateway, CLONE_NEWNET) != 0) {
    return fail_errno(errno, "cannot join the gateway's network namespace");
  }
  // One at a time would do, but together the kernel makes the user namespace first and the others
  // belong to it.
  const int network = jail.network == Jail::Network::kEmpty ? CLONE_NEWNET : 0;
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | network) != 0) {
    return fail_errno(errno, "cannot make the jail's namespaces");
  }
  return {};
}

Status write_maps(pid_t pid, const Jail& jail) {
  const std::string text = format_id_map(jail.ids);
  for (const auto* file : {"uid_map", "gid_map"}) {
    const std::string path = fmt::format("/proc/{}/{}", pid, file);
    const Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd || ::write(fd.get(), text.data(), text.size()) != std::ssize(text)) {
      return fail_errno(errno, "cannot write {}", path);
    }
  }
  return {};
}

// A mount whose source was opened before the new root covered anything.
struct OpenedMount {
  const JailMount* mount;
  Fd source;
};

bool is_bind(JailMount::Kind kind) {
  return kind == JailMount::Kind::kBind || kind == JailMount::Kind::kBindReadOnly ||
         kind == JailMount::Kind::kDevice;
}

Result<std::vector<OpenedMount>> open_sources(const Jail& jail) {
  std::vector<OpenedMount> opened;
  for (const auto& mount : jail.mounts) {
    Fd source;
    if (is_bind(mount.kind)) {
      source = Fd(::open(mount.source.c_str(), O_PATH | O_CLOEXEC));
      if (!source) return fail_errno(errno, "cannot open {} for the jail", mount.source);
    }
    opened.push_back({&mount, std::move(source)});
  }
  return opened;
}

// Makes the folders above `path` (absolute, below the new root) and returns the whole path.
std::string make_parents(const std::string& target) {
  const std::string path = kNewRoot + target;
  for (auto at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
    static_cast<void>(::mkdir(path.substr(0, at).c_str(), 0755));
  }
  return path;
}

Status bind(const OpenedMount& opened, const std::string& path) {
  struct stat info {};
  if (::fstat(opened.source.get(), &info) != 0) return fail_errno(errno, "cannot examine a source");
  if (S_ISDIR(info.st_mode)) {
    static_cast<void>(::mkdir(path.c_str(), 0755));
  } else {
    const Fd placeholder(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0444));
  }
  const std::string from = proc_fd_path(opened.source.get());
  if (::mount(from.c_str(), path.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
    return fail_errno(errno, "cannot bind {}", opened.mount->source);
  }
  // mount_setattr adds flags and keeps those that the source's mount is locked to.
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_NOSUID;
  if (opened.mount->kind != JailMount::Kind::kDevice) attributes.attr_set |= MOUNT_ATTR_NODEV;
  if (opened.mount->kind == JailMount::Kind::kBindReadOnly)
    attributes.attr_set |= MOUNT_ATTR_RDONLY;
  if (::mount_setattr(AT_FDCWD, path.c_str(), AT_RECURSIVE, &attributes, sizeof attributes) != 0) {
    return fail_errno(errno, "cannot restrict the mount of {}", opened.mount->source);
  }
  return {};
}

Status apply_mount(const OpenedMount& opened) {
  const JailMount& mount = *opened.mount;
  const std::string path = make_parents(mount.target);
  constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  switch (mount.kind) {
    case JailMount::Kind::kBind:
    case JailMount::Kind::kBindReadOnly:
    case JailMount::Kind::kDevice:
      return bind(opened, path);
    case JailMount::Kind::kSymlink:
      if (::symlink(mount.source.c_str(), path.c_str()) != 0) {
        return fail_errno(errno, "cannot link {}", mount.target);
      }
      return {};
    case JailMount::Kind::kTmpfs:
      static_cast<void>(::mkdir(path.c_str(), 0755));
      if (::mount("tmpfs", path.c_str(), "tmpfs", kFlags, "mode=0755,size=64k") != 0) {
        return fail_errno(errno, "cannot mount a tmpfs on {}", mount.target);
      }
      return {};
  }
  return fail(ErrorKind::kInternal, "unknown kind of mount");
}

Status build_root(const std::vector<OpenedMount>& opened) {
  // Everything in it is made by us and tiny; the jail's id cannot write to it.
  if (::mount("tmpfs", kNewRoot, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=128k") != 0) {
    return fail_errno(errno, "cannot mount the jail's root");
  }
  for (const auto& mount : opened) TRY(apply_mount(mount));
  // No write bit survives, not even the one of an owner inside the jail.
  mount_attr read_only{};
  read_only.attr_set = MOUNT_ATTR_RDONLY;
  if (::mount_setattr(AT_FDCWD, kNewRoot, 0, &read_only, sizeof read_only) != 0) {
    return fail_errno(errno, "cannot make the jail's root read-only");
  }
  if (::chdir(kNewRoot) != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0 ||
      ::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0) {
    return fail_errno(errno, "cannot change to the jail's root");
  }
  return {};
}

// Keeps the capabilities: the kernel clears them only on the way from id 0 to another, and the
// user's id is not 0 in the jail's namespace; it is none at all.
Status become_jail_id(const Jail& jail) {
  if ((!jail.keeps_groups && ::setgroups(0, nullptr) != 0) ||
      ::setresgid(jail.gid, jail.gid, jail.gid) != 0 ||
      ::setresuid(jail.uid, jail.uid, jail.uid) != 0) {
    return fail_errno(errno, "cannot become id {} of the jail", jail.uid);
  }
  return {};
}

Status drop_privileges(const Jail& jail) {
  const rlimit files{jail.max_open_files, jail.max_open_files};
  rlimit current{};
  ::getrlimit(RLIMIT_NOFILE, &current);
  const rlimit wanted{std::min(files.rlim_cur, current.rlim_max),
                      std::min(files.rlim_max, current.rlim_max)};
  const rlimit none{0, 0};
  if (::setrlimit(RLIMIT_NOFILE, &wanted) != 0 || ::setrlimit(RLIMIT_CORE, &none) != 0) {
    return fail_errno(errno, "cannot set limits");
  }
  const rlimit memory{jail.max_data_bytes, jail.max_data_bytes};
  if (jail.max_data_bytes != 0 && ::setrlimit(RLIMIT_DATA, &memory) != 0) {
    return fail_errno(errno, "cannot limit memory");
  }
  for (int capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    if (std::ranges::find(jail.capabilities, capability) != jail.capabilities.end()) continue;
    // EINVAL: a kernel older than our headers does not know it.
    if (::prctl(PR_CAPBSET_DROP, capability) != 0 && errno != EINVAL) {
      return fail_errno(errno, "cannot drop capability {}", capability);
    }
  }
  if (jail.capabilities.empty()) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    if (::syscall(SYS_capset, &header, data) != 0)
      return fail_errno(errno, "cannot drop capabilities");
  }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return fail_errno(errno, "cannot set no_new_privs");
  }
  return {};
}

}  // namespace

SpawnSpec confined(SpawnSpec spec, const Jail& jail, int gateway) {
  spec.prepare_in_child = [&jail, gateway] { return leave_namespaces(jail, gateway); };
  spec.in_parent = [&jail](pid_t pid) { return write_maps(pid, jail); };
  spec.in_child = [&jail]() -> Status {
    const auto sources = TRY(open_sources(jail));
    TRY(become_jail_id(jail));
    TRY(build_root(sources));
    return drop_privileges(jail);
  };
  spec.working_directory = "/";
  spec.new_session = true;
  return spec;
}

std::uint64_t allow_open_files() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  if (limit.rlim_max < kMostShareFiles) {
    const rlimit more{limit.rlim_cur, kMostShareFiles};
    if (::setrlimit(RLIMIT_NOFILE, &more) == 0) return kMostShareFiles;
  }
  return limit.rlim_max;
}

}  // namespace agent_vm

#include "confine/user_namespace.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "os/files.h"
#include "os/run.h"

namespace agent_vm {
namespace {

Status run_map_program(const std::string& program, pid_t pid, const std::vector<IdRange>& ranges) {
  Command command;
  command.argv = {program, std::to_string(pid)};
  for (const auto& range : ranges) {
    command.argv.push_back(std::to_string(range.inside));
    command.argv.push_back(std::to_string(range.outside));
    command.argv.push_back(std::to_string(range.count));
  }
  auto output = run_checked(command);
  if (!output) {
    Error error = std::move(output).error();
    if (error.kind() == ErrorKind::kMissing) {
      return tl::unexpected(std::move(error).with_hint("sudo apt-get install uidmap"));
    }
    return tl::unexpected(
        std::move(error).with_kind(ErrorKind::kMissing).within("mapping the VM's ids"));
  }
  return {};
}

// Takes a process that has just made its user namespace, from a process outside of it.
Status write_id_map(pid_t pid, const IdMap& map) {
  if (!map.written_directly) {
    TRY(run_map_program("newuidmap", pid, map.uids));
    return run_map_program("newgidmap", pid, map.gids);
  }
  for (const auto& [file, ranges] :
       {std::pair{"uid_map", &map.uids}, std::pair{"gid_map", &map.gids}}) {
    const std::string path = fmt::format("/proc/{}/{}", pid, file);
    const Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    const std::string text = format_id_map(*ranges);
    // The kernel takes a map in a single write.
    if (!fd || ::write(fd.get(), text.data(), text.size()) != std::ssize(text)) {
      return fail_errno(errno, "cannot write {}", path);
    }
  }
  return {};
}

Status unshare_user_and_mounts() {
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
    const int error = errno;
    auto failure = fail_errno(error, "cannot make a user namespace");
    return tl::unexpected(std::move(failure)
                              .value()
                              .with_kind(ErrorKind::kMissing)
                              .with_hint("agent-vm doctor shows what this machine forbids"));
  }
  // Nothing that we mount may reach the host's namespace, or come from it.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return fail_errno(errno, "cannot make mounts private");
  }
  return {};
}

}  // namespace

Result<IdMap> system_id_map() {
  IdMapInputs inputs{.uid = ::getuid(), .gid = ::getgid()};
  std::array<char, 16384> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(inputs.uid, &entry, buffer.data(), buffer.size(), &found) == 0 &&
      found != nullptr) {
    inputs.user_name = found->pw_name;
  } else {
    inputs.user_name = std::to_string(inputs.uid);
  }
  constexpr std::size_t kLargest = 4U << 20U;
  // A file that is absent grants nothing.
  if (const auto text = read_file("/etc/subuid", kLargest)) {
    inputs.subuids = parse_subordinate_ranges(*text);
  }
  if (const auto text = read_file("/etc/subgid", kLargest)) {
    inputs.subgids = parse_subordinate_ranges(*text);
  }
  return plan_id_map(inputs);
}

Status enter_user_namespace(const IdMap& map) {
  // newuidmap must run outside the new namespace, so a child stays behind to do it.
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    return fail_errno(errno, "cannot make a socket pair");
  }
  Fd ours(pair[0]);
  Fd theirs(pair[1]);
  const pid_t self = ::getpid();

  SpawnSpec outside;
  outside.argv = {"id-mapper"};
  outside.descriptors = {{theirs.get(), 3}};
  outside.main_instead_of_exec = [self, &map] {
    char go = 0;
    if (::recv(3, &go, 1, 0) != 1) return 1;
    const Status written = write_id_map(self, map);
    const std::string report =
        written ? "" : fmt::format("{}\n{}", written.error().message(), written.error().hint());
    static_cast<void>(::send(3, report.data(), report.size(), MSG_NOSIGNAL));
    return written ? 0 : 1;
  };
  Child mapper = TRY(spawn(outside));
  theirs.reset();
  TRY(unshare_user_and_mounts());
  static_cast<void>(::send(ours.get(), "g", 1, MSG_NOSIGNAL));
  const auto exit = TRY(mapper.wait());
  if (exit.code != 0) {
    std::array<char, 4096> report{};
    const ssize_t got = ::recv(ours.get(), report.data(), report.size(), MSG_DONTWAIT);
    const std::string text(report.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    const auto newline = text.find('\n');
    Error error(ErrorKind::kMissing,
                text.empty() ? "cannot map the VM's ids" : text.substr(0, newline));
    return tl::unexpected(
        std::move(error).with_hint(newline == std::string::npos ? "" : text.substr(newline + 1)));
  }
  return {};
}

Status take_kvm_group() {
  if (::geteuid() != 0) return {};
  struct stat info {};
  const bool exists = ::stat("/dev/kvm", &info) == 0;
  if (::setgroups(exists ? 1 : 0, &info.st_gid) != 0)
    return fail_errno(errno, "cannot change groups");
  return {};
}

Status become_in_namespace(std::uint32_t id) {
  if (::setgroups(0, nullptr) != 0 || ::setresgid(id, id, id) != 0 || ::setresuid(id, id, id) != 0)
    return fail_errno(errno, "cannot become id {} of the VM's namespace", id);
  return {};
}

SpawnSpec in_user_namespace(SpawnSpec spec, const IdMap& map, std::uint32_t as) {
  spec.prepare_in_child = unshare_user_and_mounts;
  spec.in_parent = [map](pid_t pid) { return write_id_map(pid, map); };
  spec.in_child = [as] { return become_in_namespace(as); };
  return spec;
}

}  // namespace agent_vm

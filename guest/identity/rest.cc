#include "identity/rest.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <functional>
#include <memory>

#include "base/fd.h"
#include "base/text.h"
#include "identity/program.h"
#include "identity/steps.h"

namespace agent_vm {
namespace {

constexpr const char* kWorkspace = "/workspace";
constexpr const char* kService = "agent-mcp.service";
constexpr std::size_t kMostUsers = 20;

using Folder = std::unique_ptr<DIR, decltype([](DIR* d) { ::closedir(d); })>;

// A file of /proc, as much as there is of it up to 1 MiB; "" when the process is gone.
std::string read_text(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 65536> part{};
  while (fd && text.size() < (1U << 20U)) {
    const ssize_t got = ::read(fd.get(), part.data(), part.size());
    if (got <= 0) break;
    text.append(part.data(), static_cast<std::size_t>(got));
  }
  return text;
}

std::string link_of(const std::string& path) {
  std::array<char, 4096> target{};
  const ssize_t size = ::readlink(path.c_str(), target.data(), target.size());
  return size > 0 ? std::string(target.data(), static_cast<std::size_t>(size)) : "";
}

bool in_workspace(std::string_view path) {
  constexpr std::string_view kTop = "/workspace";
  return path.starts_with(kTop) && (path.size() == kTop.size() || path[kTop.size()] == '/');
}

void for_each_process(const std::function<void(const std::string& pid)>& visit) {
  const Folder processes(::opendir("/proc"));
  while (const dirent* entry = processes ? ::readdir(processes.get()) : nullptr) {
    if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9') visit(entry->d_name);
  }
}

// What of the workspace it holds, or "".
std::string held_by(const std::string& proc) {
  for (const auto* name : {"cwd", "root", "exe"}) {
    if (in_workspace(link_of(proc + "/" + name))) return name;
  }
  const Folder descriptors(::opendir((proc + "/fd").c_str()));
  while (const dirent* entry = descriptors ? ::readdir(descriptors.get()) : nullptr) {
    const std::string target = link_of(proc + "/fd/" + entry->d_name);
    if (in_workspace(target)) return target;
  }
  for (const auto& line : split_lines(read_text(proc + "/maps"))) {
    const auto at = line.find('/');
    if (at != std::string::npos && in_workspace(std::string_view(line).substr(at)))
      return line.substr(at);
  }
  return "";
}

// "process 123 (npm ci): /workspace/x"
std::vector<std::string> users() {
  std::vector<std::string> found;
  for_each_process([&](const std::string& pid) {
    const std::string proc = "/proc/" + pid;
    if (found.size() >= kMostUsers ||
        read_text(proc + "/cgroup").find(kService) != std::string::npos)
      return;
    const std::string held = held_by(proc);
    if (held.empty()) return;
    std::string command = read_text(proc + "/cmdline").substr(0, 200);
    for (char& c : command) c = c == '\0' ? ' ' : c;
    found.push_back(fmt::format("process {} ({}): {}", pid, trim(command), held));
  });
  return found;
}

Status check_users(bool force) {
  auto found = users();
  if (force || found.empty()) return {};
  return tl::unexpected(
      Error(ErrorKind::kFailed, fmt::format("{} {} files in /workspace open", found.size(),
                                            found.size() == 1 ? "process has" : "processes have"))
          .with_evidence(std::move(found)));
}

Status service(const char* verb) {
  ProgramOutput ran = TRY(run_program({"/usr/bin/systemctl", verb, kService}));
  if (ran.ok) return {};
  return tl::unexpected(Error(ErrorKind::kFailed, fmt::format("cannot {} {}", verb, kService))
                            .with_evidence(std::move(ran.lines)));
}

Status leave_workspace(bool force) {
  ::sync();
  if (::umount2(kWorkspace, force ? MNT_DETACH : 0) == 0) return {};
  const int error = errno;
  if (error == EINVAL) return {};  // it is not mounted
  // Somebody came since they were counted. All is as it was again.
  static_cast<void>(service("start"));
  TRY(check_users(false));
  return fail_errno(error, "cannot unmount {}", kWorkspace);
}

}  // namespace

IdentityReport rest(bool force) {
  return run_steps({
      {"users", [&] { return check_users(force); }},
      {"service", [] { return service("stop"); }},
      {"workspace", [&] { return leave_workspace(force); }},
  });
}

Status end_connections() {
  for_each_process([](const std::string& pid) {
    const std::string status = read_text("/proc/" + pid + "/status");
    if (!status.starts_with("Name:\tsshd\n")) return;
    // The listener is systemd's child; all others serve one connection.
    if (status.find("\nPPid:\t1\n") != std::string::npos) return;
    if (const auto number = parse_unsigned(pid)) ::kill(static_cast<pid_t>(*number), SIGTERM);
  });
  return {};
}

}  // namespace agent_vm

#include "launch/fork.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "base/log.h"
#include "base/text.h"
#include "config/names.h"
#include "confine/user_namespace.h"
#include "control/client.h"
#include "image/store.h"
#include "launch/prepare.h"
#include "launch/remove_tree.h"
#include "launch/secrets.h"
#include "launch/suspended.h"
#include "os/files.h"
#include "os/spawn.h"
#include "state/authority.h"
#include "state/keys.h"
#include "state/ports.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr const char* kParts[] = {suspended_files::kFolder, kDiskFile, vm_files::kWorkspace};

struct Draft {
  NewVmDirectory directory;
  VmConfig config;
};

Status check_names(const StateDirectory& state, const std::vector<std::string>& names) {
  for (const auto& name : names) {
    TRY(valid_vm_name(name));
    if (exists_at(state.fd(), name)) return already_exists(name);
  }
  return {};
}

Result<std::chrono::milliseconds> ask_supervisor(const VmDirectory& source, bool force,
                                                 const Deadline& deadline) {
  auto client = TRY(ControlClient::connect(source.fd()));
  json request = {{"request", "fork"}, {"force", force}};
  // It undoes what it has begun, for which it needs some of the time.
  const int left = deadline.poll_ms();
  if (left >= 0) request["patience_ms"] = left * 2 / 3;
  const json result = TRY(client.call(request, deadline));
  return std::chrono::milliseconds(result.value("stood_ms", 0));
}

// As the VM's root, whose files many of these are.
Status copy_parts(const std::string& from, const std::string& to, const Deadline& deadline) {
  SpawnSpec spec;
  spec.argv = {"cp", "--archive", "--reflink=auto", "--sparse=always", "--one-file-system"};
  for (const auto* part : kParts) spec.argv.push_back(from + "/" + part);
  spec.argv.push_back(to + "/");
  spec.environment = host_environment();
  spec.working_directory = "/";
  if (::geteuid() != 0) spec = in_user_namespace(std::move(spec), TRY(system_id_map()), kGuestRoot);
  Child child = TRY(spawn(spec));
  const auto exit = child.wait(deadline);
  if (!exit) {
    static_cast<void>(child.signal(SIGKILL));
    static_cast<void>(child.wait());
    return tl::unexpected(exit.error());
  }
  if (exit->code != 0) return fail("copying the fork failed: cp {}", exit->describe());
  return {};
}

Status move_parts(int from, int to) {
  for (const auto* part : kParts) {
    if (::renameat(from, part, to, part) != 0) return fail_errno(errno, "cannot move {}", part);
  }
  return {};
}

Status take_parts(const VmDirectory& source, const NewVmDirectory& into, bool last,
                  const Deadline& deadline) {
  const Fd folder = TRY(open_beneath(source.fd(), kForkFolder, O_RDONLY | O_DIRECTORY));
  if (last) return move_parts(folder.get(), into.fd());
  return copy_parts(fmt::format("{}/{}", source.path(), kForkFolder), into.path(), deadline);
}

VmConfig config_of_fork(const StateDirectory& state, const VmConfig& source,
                        const std::string& name) {
  VmConfig config = source;
  config.name = name;
  config.created_at = utc_now();
  const std::string directory = state.path() + "/" + name;
  config.workspace_path = directory + "/" + vm_files::kWorkspace;
  config.ssh_key_path = directory + "/" + vm_files::kPrivateKey;
  // The source has those that were asked for.
  std::erase(config.explicit_settings, kPortSetting);
  std::erase(config.explicit_settings, kSshPortSetting);
  return config;
}

// All but the ports and the name.
Status fill(const VmDirectory& source, const Draft& draft, bool last, const Bounds& bounds) {
  const int dir = draft.directory.fd();
  TRY(make_keys(draft.config.name, dir, draft.directory.path(), bounds));
  TRY(ensure_authority(draft.config.name, dir));
  TRY(make_directory_at(dir, vm_files::kLogs, 0700));
  const std::string disk = TRY(source.read_small_file(kDiskRecordFile));
  TRY(write_file_atomic(dir, kDiskRecordFile, disk, 0600));
  // The same placeholders: the source's processes, which go on in the fork, know no others.
  if (exists_at(source.fd(), kPlaceholders)) {
    const std::string placeholders = TRY(source.read_small_file(kPlaceholders));
    TRY(write_file_atomic(dir, kPlaceholders, placeholders, 0600));
  }
  return take_parts(source, draft.directory, last, bounds.deadline);
}

Status name_all(const StateDirectory& state, std::vector<Draft>& drafts, const Bounds& bounds) {
  const DirectoryLock lock = TRY(state.lock(bounds.deadline));
  for (auto& [directory, config] : drafts) {
    config.port = TRY(choose_port(
        state, {.address = config.bind_address, .first = kFirstMcpPort, .what = "MCP port"}));
    config.ssh_port = TRY(choose_port(state, {.address = config.bind_address,
                                              .first = kFirstSshPort,
                                              .avoid = config.port,
                                              .what = "SSH port"}));
    TRY(validate(config));
    TRY(write_file_atomic(directory.fd(), vm_files::kConfig, to_json_text(config), 0600));
    TRY(directory.commit(config.name));
  }
  return {};
}

Status make_all(const StateDirectory& state, const VmDirectory& source, std::vector<Draft>& drafts,
                const Bounds& bounds) {
  for (std::size_t i = 0; i < drafts.size(); ++i) {
    TRY(bounds.check());
    TRY(fill(source, drafts[i], i + 1 == drafts.size(), bounds));
  }
  TRY(name_all(state, drafts, bounds));
  const ImageStore images = TRY(ImageStore::of_user());
  const auto disk = TRY(read_disk_record(source));
  for (const auto& draft : drafts) {
    if (disk) TRY(images.add_user(disk->image_key, state.path() + "/" + draft.config.name));
  }
  return {};
}

}  // namespace

Result<ForkOutcome> fork_vm(const StateDirectory& state, const VmDirectory& source,
                            const ForkRequest& request, const Bounds& bounds) {
  TRY(check_names(state, request.names));
  const VmConfig config = TRY(source.read_config());
  const auto run = TRY(source.read_run());
  if (!run || run->is_stale()) {
    auto error = fail(ErrorKind::kNotRunning, "VM '{}' is not running", source.name());
    return tl::unexpected(std::move(error).value().with_hint(
        fmt::format("agent-vm start {}", shell_quote(source.name()))));
  }
  ForkOutcome outcome;
  outcome.stood = TRY(ask_supervisor(source, request.force, bounds.deadline));
  std::vector<Draft> drafts;
  Status done;
  for (const auto& name : request.names) {
    auto directory = NewVmDirectory::make(state);
    if (!directory) {
      done = tl::unexpected(directory.error());
      break;
    }
    drafts.push_back({std::move(*directory), config_of_fork(state, config, name)});
  }
  if (done) done = make_all(state, source, drafts, bounds);
  if (!done) {
    // What belongs to the guest's ids, before the folders go by themselves.
    for (const auto& draft : drafts)
      static_cast<void>(remove_vm_tree(draft.directory.fd(), vm_files::kWorkspace));
  }
  if (const auto removed = remove_vm_tree(source.fd(), kForkFolder); !removed)
    log::warn("{}", removed.error().message());
  if (!done) return tl::unexpected(done.error());
  for (const auto& draft : drafts) outcome.forks.push_back(draft.config);
  return outcome;
}

}  // namespace agent_vm

#include "launch/suspended.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/log.h"
#include "base/text.h"
#include "image/sealed_folder.h"
#include "os/files.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr const char* kManifest = "machine.json";
constexpr const char* kDraft = "suspended.new";
constexpr std::size_t kMaxManifest = 65536;

json to_json(const SuspendedMachine& machine) {
  return {{"key", machine.key},
          {"image", machine.image_key},
          {"qemu", machine.qemu_build},
          {"accelerator", machine.accelerator},
          {"memory_bytes", machine.memory_bytes},
          {"cpus", machine.cpus},
          {"at", machine.at},
          {"is_other", machine.is_other}};
}

Result<SuspendedMachine> machine_from_json(const json& value) {
  SuspendedMachine machine;
  try {
    value.at("key").get_to(machine.key);
    value.at("image").get_to(machine.image_key);
    value.at("qemu").get_to(machine.qemu_build);
    value.at("accelerator").get_to(machine.accelerator);
    value.at("memory_bytes").get_to(machine.memory_bytes);
    value.at("cpus").get_to(machine.cpus);
    value.at("at").get_to(machine.at);
    value.at("is_other").get_to(machine.is_other);
  } catch (const json::exception& error) {
    return fail("{} cannot be understood: {}", kManifest, error.what());
  }
  return machine;
}

Result<Suspended> read(const VmDirectory& vm) {
  const Fd folder = TRY(open_beneath(vm.fd(), suspended_files::kFolder, O_RDONLY | O_DIRECTORY));
  SealedFolder sealed = TRY(open_sealed_folder(folder.get(), kManifest));
  Suspended suspended{.machine = TRY(machine_from_json(sealed.about)),
                      .files = std::move(sealed.files)};
  for (const auto* name : {suspended_files::kPages, suspended_files::kMap,
                           suspended_files::kDevices, suspended_files::kRoot}) {
    if (!suspended.files.contains(name)) return fail("{} does not name {}", kManifest, name);
  }
  return suspended;
}

}  // namespace

bool is_suspended(const VmDirectory& vm) {
  return exists_at(vm.fd(), suspended_files::kFolder);
}

std::string describe_suspended(const VmDirectory& vm) {
  const auto text = read_file_at(vm.fd(), fmt::format("{}/{}", suspended_files::kFolder, kManifest),
                                 kMaxManifest);
  if (!text) return "what was saved of it is damaged";
  const json value = json::parse(*text, nullptr, false);
  if (!value.is_object() || !value.contains("about")) return "what was saved of it is damaged";
  const auto machine = machine_from_json(value["about"]);
  return machine ? fmt::format("since {}", machine->at) : "what was saved of it is damaged";
}

Result<Suspended> open_suspended(const VmDirectory& vm) {
  auto suspended = read(vm);
  if (suspended) return suspended;
  return tl::unexpected(
      std::move(suspended)
          .error()
          .within(fmt::format("the suspended VM '{}' cannot go on: what was saved of it is damaged",
                              vm.name()))
          .with_hint(fmt::format("agent-vm stop {}   gives its memory up, as if the power had "
                                 "failed; disk and workspace stay",
                                 shell_quote(vm.name()))));
}

Status remove_drafts(const VmDirectory& vm) {
  return remove_tree_at(vm.fd(), kDraft);
}

Status discard_suspended(const VmDirectory& vm) {
  TRY(remove_tree_at(vm.fd(), kDraft));
  // In one step, so that nobody finds a half of it.
  if (::renameat(vm.fd(), suspended_files::kFolder, vm.fd(), kDraft) != 0 && errno != ENOENT)
    return fail_errno(errno, "cannot give up what was saved of the VM");
  if (::fsync(vm.fd()) != 0) return fail_errno(errno, "cannot write {}", vm.path());
  return remove_tree_at(vm.fd(), kDraft);
}

Result<SuspendedDraft> SuspendedDraft::begin(int parent) {
  TRY(remove_tree_at(parent, kDraft));
  TRY(make_directory_at(parent, kDraft, 0700));
  Fd directory = TRY(open_beneath(parent, kDraft, O_RDONLY | O_DIRECTORY));
  Fd own = TRY(reopen(parent, O_RDONLY | O_DIRECTORY));
  return SuspendedDraft(std::move(own), std::move(directory));
}

Result<Fd> SuspendedDraft::create(const char* name) {
  names_.emplace_back(name);
  return open_beneath(directory_.get(), name, O_RDWR | O_CREAT | O_EXCL, 0600);
}

Status SuspendedDraft::commit(const SuspendedMachine& machine) {
  TRY(seal_folder(directory_.get(), kManifest, to_json(machine), names_));
  if (::fsync(directory_.get()) != 0 ||
      ::renameat(parent_.get(), kDraft, parent_.get(), suspended_files::kFolder) != 0 ||
      ::fsync(parent_.get()) != 0)
    return fail_errno(errno, "cannot name what was saved of the VM");
  return {};
}

void SuspendedDraft::discard() {
  if (const auto removed = remove_tree_at(parent_.get(), kDraft); !removed)
    log::warn("{}", removed.error().message());
}

}  // namespace agent_vm

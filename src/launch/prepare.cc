#include "launch/prepare.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include <nlohmann/json.hpp>
#include "base/text.h"
#include "confine/user_namespace.h"
#include "launch/accelerator.h"
#include "launch/host_programs.h"
#include "launch/image_choice.h"
#include "launch/install_layout.h"
#include "os/files.h"
#include "os/run.h"

namespace agent_vm {

using nlohmann::json;

Result<std::optional<DiskRecord>> read_disk_record(const VmDirectory& vm) {
  if (!exists_at(vm.fd(), kDiskFile) || !exists_at(vm.fd(), kDiskRecordFile)) return std::nullopt;
  const json value =
      json::parse(TRY(read_file_at(vm.fd(), kDiskRecordFile, 65536)), nullptr, false);
  if (!value.is_object() || !value.contains("image_key") || !value["image_key"].is_string() ||
      !value.contains("bytes") || !value["bytes"].is_number_unsigned()) {
    auto error = fail("{} of VM '{}' cannot be understood, so its disk cannot be used",
                      kDiskRecordFile, vm.name());
    return tl::unexpected(std::move(error).value().with_hint(
        fmt::format("agent-vm reset {}   (a new disk; the workspace stays)", vm.name())));
  }
  return DiskRecord{value["image_key"].get<std::string>(), value["bytes"].get<std::uint64_t>()};
}

Result<PreparedStart> prepare_start(const VmDirectory& vm, const VmConfig& config,
                                    const Deadline& deadline) {
  PreparedStart prepared;
  const auto record = TRY(read_disk_record(vm));
  prepared.disk_exists = record.has_value();
  prepared.disk_bytes = record ? record->bytes : config.disk_bytes;

  const ChosenImage chosen = TRY(choose_image(config, record));
  const Image& image = chosen.image;
  if (prepared.disk_bytes < image.root_bytes) {
    return fail(ErrorKind::kInvalidInput, "a disk of {} is too small for the image, which has {}",
                format_size(prepared.disk_bytes), format_size(image.root_bytes));
  }
  prepared.image_key = image.key;
  prepared.image_root = image.directory + "/root.img";
  if (chosen.newer_exists) {
    prepared.notes.push_back(
        fmt::format("a newer image exists; the disk of this VM stays on the one it was made from "
                    "until: agent-vm reset {}",
                    shell_quote(vm.name())));
  }
  HostPrograms programs = TRY(find_host_programs(deadline));
  programs.relay = TRY(InstallLayout::find()).relay;
  const std::string kernel = image.directory + "/vmlinuz";
  const std::string initramfs = image.directory + "/initrd.img";
  AcceleratorChoice accelerator =
      TRY(choose_accelerator(config.accel, programs, {kernel, initramfs, image.key}, deadline));
  prepared.accelerator = accelerator.accelerator;
  if (!accelerator.note.empty()) prepared.notes.push_back(std::move(accelerator.note));

  PlanInputs inputs;
  inputs.vm_name = vm.name();
  inputs.memory_bytes = config.memory_bytes;
  inputs.cpus = config.cpus;
  inputs.accelerator = prepared.accelerator;
  inputs.workspace_path = config.workspace_path;
  inputs.kernel_path = kernel;
  inputs.initramfs_path = initramfs;
  inputs.kernel_arguments = "root=/dev/vda rw";
  inputs.bind_address = config.bind_address;
  inputs.ssh_port = config.ssh_port;
  inputs.mcp_port = config.port;
  inputs.programs = std::move(programs);
  inputs.ids = TRY(system_id_map());
  prepared.plan = TRY(make_launch_plan(inputs));
  return prepared;
}

Status ensure_disk(const VmDirectory& vm, const PreparedStart& prepared, const Deadline& deadline) {
  if (prepared.disk_exists) return {};
  // No backing file in its header: the chain is in the launch plan, where a guest cannot reach it.
  const std::string temporary = std::string(kDiskFile) + ".new";
  TRY(remove_tree_at(vm.fd(), temporary));
  auto made =
      run_checked({.argv = {"qemu-img", "create", "-q", "-f", "qcow2", vm.path() + "/" + temporary,
                            std::to_string(prepared.disk_bytes)},
                   .deadline = deadline});
  if (!made) {
    static_cast<void>(remove_tree_at(vm.fd(), temporary));
    return tl::unexpected(std::move(made).error().within("making the VM's disk"));
  }
  if (::fchmodat(vm.fd(), temporary.c_str(), 0600, 0) != 0)
    return fail_errno(errno, "cannot protect the VM's disk");
  // The record first: a disk without one is no disk, a record without a disk is replaced.
  const json record = {
      {"schema", 1}, {"image_key", prepared.image_key}, {"bytes", prepared.disk_bytes}};
  TRY(write_file_atomic(vm.fd(), kDiskRecordFile, record.dump(2) + "\n", 0600));
  if (::renameat(vm.fd(), temporary.c_str(), vm.fd(), kDiskFile) != 0) {
    return fail_errno(errno, "cannot name the VM's disk");
  }
  // `image prune` must know of this VM, whichever state directory it is run on.
  const ImageStore store = TRY(ImageStore::of_user());
  return store.add_user(prepared.image_key, vm.path());
}

Status discard_disk(const VmDirectory& vm) {
  // The disk first: a record without a disk means no disk.
  TRY(remove_tree_at(vm.fd(), kDiskFile));
  return remove_tree_at(vm.fd(), kDiskRecordFile);
}

}  // namespace agent_vm

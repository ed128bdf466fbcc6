#include "launch/prepare.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/text.h"
#include "confine/user_namespace.h"
#include "launch/accelerator.h"
#include "launch/egress.h"
#include "launch/host_programs.h"
#include "launch/image_choice.h"
#include "launch/install_layout.h"
#include "os/files.h"
#include "os/run.h"
#include "os/sha256.h"

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

namespace {

// What decides on the instructions that a guest may have seen.
std::string host_processor() {
  const std::string info = read_file("/proc/cpuinfo", 1U << 22U).value_or("");
  // Of the first processor; "model name", "microcode" and "flags" are among these lines.
  std::string about;
  for (const auto& line : split_lines(info.substr(0, info.find("\n\n")))) {
    for (const auto* field :
         {"vendor_id", "cpu family", "model", "stepping", "microcode", "flags"}) {
      if (line.starts_with(field)) about += line + "\n";
    }
  }
  return about;
}

// Sparse: it takes up what is written to it.
Status make_file_system(const VmDirectory& vm, const std::string& name, std::uint64_t bytes,
                        const Deadline& deadline) {
  const Fd disk = TRY(open_beneath(vm.fd(), name, O_RDWR | O_CREAT | O_EXCL, 0600));
  if (::ftruncate(disk.get(), static_cast<off_t>(bytes)) != 0)
    return fail_errno(errno, "cannot make a file of {}", format_size(bytes));
  // The file is zeros already: neither mke2fs nor the guest's kernel has to write them.
  TRY(run_checked({.argv = {"/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-E",
                            "lazy_itable_init=0,lazy_journal_init=1,nodiscard,"
                            "assume_storage_prezeroed=1",
                            vm.path() + "/" + name},
                   .deadline = deadline}));
  return {};
}

// Everything that a saved state depends on. The arguments hold the machine's whole shape.
std::string template_key_of(const std::string& image_key, const HostPrograms& programs,
                            Accelerator accelerator, const LaunchPlan& plan) {
  const json all = {{"format", 2},
                    {"image", image_key},
                    {"qemu", programs.qemu_build},
                    {"processor", accelerator == Accelerator::kKvm ? host_processor() : ""},
                    {"arguments", plan.resumed_qemu.argv}};
  return sha256_hex(all.dump()).substr(0, 20);
}

Result<std::shared_ptr<const Suspended>> find_suspended(const VmDirectory& vm, bool cold) {
  if (!is_suspended(vm)) return nullptr;
  if (cold) {
    auto error =
        fail(ErrorKind::kInvalidInput,
             "VM '{}' is suspended: it goes on where it was, and does not boot", vm.name());
    return tl::unexpected(std::move(error).value().with_hint(
        fmt::format("agent-vm stop {}   gives its memory up first", shell_quote(vm.name()))));
  }
  return std::make_shared<const Suspended>(TRY(open_suspended(vm)));
}

// A saved guest knows its machine bit by bit.
Status check_machine(const VmDirectory& vm, const SuspendedMachine& was,
                     const SuspendedMachine& is) {
  if (was.key == is.key) return {};
  std::string why = "its machine is not what it was";
  const auto differs = [&](const char* what, const std::string& then, const std::string& now) {
    if (then != now) why = fmt::format("{} was '{}' and is '{}' now", what, then, now);
  };
  differs("the image", was.image_key, is.image_key);
  differs("the accelerator", was.accelerator, is.accelerator);
  differs("QEMU", was.qemu_build, is.qemu_build);
  auto error = fail("the suspended VM '{}' cannot go on: {}", vm.name(), escape_line(why));
  return tl::unexpected(std::move(error).value().with_hint(
      fmt::format("make it as it was, or: agent-vm stop {}   gives its memory up, as if the power "
                  "had failed; disk and workspace stay",
                  shell_quote(vm.name()))));
}

void choose_template(PreparedStart& prepared, const std::string& image_directory, bool cold) {
  if (cold || prepared.suspended) return;
  auto found = TemplateStore(image_directory).open(prepared.template_key);
  if (found) {
    prepared.warm = std::make_shared<const Template>(std::move(*found));
    prepared.plan.warm = true;
    return;
  }
  prepared.makes_template = true;
  if (found.error().kind() == ErrorKind::kNotFound) return;
  prepared.notes.push_back(
      fmt::format("the template of this machine is damaged ({}), so the guest boots, and leaves a "
                  "new one",
                  found.error().message()));
}

}  // namespace

Result<PreparedStart> prepare_start(const VmDirectory& vm, const VmConfig& config, bool cold,
                                    const Deadline& deadline) {
  PreparedStart prepared;
  prepared.suspended = TRY(find_suspended(vm, cold));
  const auto record = TRY(read_disk_record(vm));
  prepared.disk_exists = record.has_value();
  prepared.disk_bytes = record ? record->bytes : config.disk_bytes;

  const ChosenImage chosen = TRY(choose_image(config, record));
  const Image& image = chosen.image;
  prepared.image_key = image.key;
  prepared.root_bytes = image.root_bytes;
  prepared.image_directory = image.directory;
  prepared.image_root = image.directory + "/root.img";
  if (chosen.newer_exists) {
    prepared.notes.push_back(
        fmt::format("a newer image exists; the disk of this VM stays on the one it was made from "
                    "until: agent-vm reset {}",
                    shell_quote(vm.name())));
  }
  HostPrograms programs = TRY(find_host_programs(deadline));
  const InstallLayout layout = TRY(InstallLayout::find());
  programs.relay = layout.relay;
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
  if (prepared.suspended) {
    inputs.memory_bytes = prepared.suspended->machine.memory_bytes;
    inputs.cpus = prepared.suspended->machine.cpus;
    inputs.saved_on_template = prepared.suspended->has_base();
  }
  inputs.accelerator = prepared.accelerator;
  inputs.workspace_path = config.workspace_path;
  inputs.memory_path = fmt::format("{}/{}/{}", vm.path(), kMemoryFolder, kMemoryFile);
  inputs.kernel_path = kernel;
  inputs.initramfs_path = initramfs;
  inputs.kernel_arguments = "root=/dev/vda rw";
  inputs.bind_address = config.bind_address;
  inputs.ssh_port = config.ssh_port;
  inputs.mcp_port = config.port;
  inputs.programs = std::move(programs);
  inputs.egress = egress_inputs(layout, vm);
  if (config.network.mode != NetworkMode::kOff) TRY(check_egress());
  inputs.ids = TRY(system_id_map());
  prepared.plan = TRY(make_launch_plan(inputs));
  prepared.template_key =
      template_key_of(image.key, inputs.programs, prepared.accelerator, prepared.plan);
  prepared.machine = {.key = prepared.template_key,
                      .image_key = image.key,
                      .qemu_build = inputs.programs.qemu_build,
                      .accelerator = to_string(prepared.accelerator),
                      .memory_bytes = inputs.memory_bytes,
                      .cpus = inputs.cpus};
  if (prepared.suspended) {
    TRY(check_machine(vm, prepared.suspended->machine, prepared.machine));
    prepared.plan.wakes = true;
  }
  choose_template(prepared, image.directory, cold);
  return prepared;
}

Status ensure_disk(const VmDirectory& vm, const PreparedStart& prepared, const Deadline& deadline) {
  if (prepared.disk_exists) return {};
  const std::string temporary = std::string(kDiskFile) + ".new";
  TRY(remove_tree_at(vm.fd(), temporary));
  auto made = make_file_system(vm, temporary, prepared.disk_bytes, deadline);
  if (!made) {
    static_cast<void>(remove_tree_at(vm.fd(), temporary));
    return tl::unexpected(std::move(made).error().within("making the VM's disk"));
  }
  // The record first: a disk without one is no disk, a record without a disk is replaced.
  const json record = {
      {"schema", 2}, {"image_key", prepared.image_key}, {"bytes", prepared.disk_bytes}};
  TRY(write_file_atomic(vm.fd(), kDiskRecordFile, record.dump(2) + "\n", 0600));
  if (::renameat(vm.fd(), temporary.c_str(), vm.fd(), kDiskFile) != 0) {
    return fail_errno(errno, "cannot name the VM's disk");
  }
  // `image prune` must know of this VM, whichever state directory it is run on.
  const ImageStore store = TRY(ImageStore::of_user());
  return store.add_user(prepared.image_key, vm.path());
}

Result<Fd> make_root_overlay(const VmDirectory& vm, const PreparedStart& prepared,
                             const Deadline& deadline) {
  constexpr const char* kName = "root.qcow2";
  TRY(remove_tree_at(vm.fd(), kName));
  if (prepared.suspended) {
    // A copy: what was saved must stay as it is until the guest goes on.
    Fd copy = TRY(open_beneath(vm.fd(), kName, O_RDWR | O_CREAT | O_EXCL, 0600));
    TRY(remove_tree_at(vm.fd(), kName));
    TRY(copy_file(prepared.suspended->file(suspended_files::kRoot), copy.get()));
    return copy;
  }
  // No backing file in its header: the chain is in the launch plan, where a guest cannot reach it.
  TRY_CONTEXT(run_checked({.argv = {"qemu-img", "create", "-q", "-f", "qcow2",
                                    vm.path() + "/" + kName, std::to_string(prepared.root_bytes)},
                           .deadline = deadline}),
              "making the run's root overlay");
  Fd overlay = TRY(open_beneath(vm.fd(), kName, O_RDWR));
  TRY(remove_tree_at(vm.fd(), kName));
  return overlay;
}

Status discard_disk(const VmDirectory& vm) {
  // The disk first: a record without a disk means no disk.
  TRY(remove_tree_at(vm.fd(), kDiskFile));
  return remove_tree_at(vm.fd(), kDiskRecordFile);
}

}  // namespace agent_vm

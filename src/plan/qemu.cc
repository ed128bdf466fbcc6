#include "plan/qemu.h"

#include <algorithm>

namespace agent_vm {
namespace {

using Arguments = std::vector<std::string>;
using nlohmann::json;
// Keeps the order in which a person wrote the keys.
using ordered = nlohmann::ordered_json;

constexpr const char* kJailKernel = "/kernel";
constexpr const char* kJailInitramfs = "/initramfs";
constexpr const char* kJailMemory = "/memory";
// The card's address in the machine, the same in all: a template knows only one. The guest takes
// its own with its identity, and each card is alone on its wire anyway.
constexpr const char* kMachineMac = "52:54:00:00:00:01";

// Numbers in the child. Below 3 are the standard streams.
constexpr int kMonitorFd = 3;
constexpr int kGuestAgentFd = 4;
constexpr int kConsoleFd = 5;
constexpr int kTapFd = 6;
constexpr int kRootFd = 7;
constexpr int kImageFd = 8;
constexpr int kDiskFd = 9;
constexpr int kTemplateRootFd = 10;
constexpr int kGuestBellFd = 11;

void add(Arguments& arguments, std::initializer_list<std::string> more) {
  arguments.insert(arguments.end(), more);
}

// JSON needs no escaping rules of its own; key=value options do (a comma in a path is an
// injection).
void add_json(Arguments& arguments, const char* option, const ordered& value) {
  add(arguments, {option, value.dump()});
}

void add_machine(Arguments& arguments, const PlanInputs& inputs) {
  std::string machine = "q35,memory-backend=ram,usb=off,graphics=off";
  // Devices of a PC that nobody in here needs, switched off where this QEMU can.
  for (const auto* device : {"sata", "smbus", "i8042", "hpet", "vmport"}) {
    if (std::ranges::find(inputs.programs.machine_options, device) !=
        inputs.programs.machine_options.end()) {
      machine += fmt::format(",{}=off", device);
    }
  }
  const bool kvm = inputs.accelerator == Accelerator::kKvm;
  add(arguments, {"-name", "guest=agent-vm,debug-threads=on", "-machine", machine, "-accel",
                  kvm ? "kvm" : "tcg,thread=multi", "-cpu", kvm ? "host" : "max", "-smp",
                  fmt::format("{},sockets=1,cores={},threads=1", inputs.cpus, inputs.cpus), "-m",
                  fmt::format("{}B", inputs.memory_bytes)});
  // A file, because that of a template is filled in while QEMU starts, and is not part of the state
  // that QEMU then reads; shared, because virtiofsd serves requests straight out of it.
  add_json(arguments, "-object",
           {{"qom-type", "memory-backend-file"},
            {"id", "ram"},
            {"size", inputs.memory_bytes},
            {"mem-path", kJailMemory},
            {"share", true}});
}

void add_boot(Arguments& arguments, const PlanInputs& inputs) {
  // Nothing here tells one VM from another: identity comes over the guest agent.
  // Lockdown: not even root may write into the running kernel.
  const std::string command_line =
      "console=ttyS0 quiet loglevel=4 net.ifnames=0 panic=-1 lockdown=integrity " +
      inputs.kernel_arguments;
  add(arguments,
      {"-kernel", kJailKernel, "-initrd", kJailInitramfs, "-append", command_line, "-no-reboot"});
}

// One node of a chain, open as a descriptor of QEMU's.
ordered file_node(int set, bool writable) {
  ordered node = {{"driver", "file"}, {"filename", fmt::format("/dev/fdset/{}", set)}};
  if (writable)
    node["discard"] = "unmap";
  else
    node["read-only"] = true;
  node["locking"] = "off";
  return node;
}

// On which layers the machine's root lies, and whether it has its disk from the beginning.
struct Shape {
  bool incoming;  // it takes a saved state over
  bool layer;     // a template's overlay is below the run's
  bool disk;      // plugged in already when the state was saved
};

Shape shape_of(QemuStart start, const PlanInputs& inputs) {
  switch (start) {
    case QemuStart::kBoot:
      return {.incoming = false, .layer = false, .disk = false};
    case QemuStart::kResume:
      return {.incoming = true, .layer = true, .disk = false};
    case QemuStart::kWake:
      return {.incoming = true, .layer = inputs.saved_on_template, .disk = true};
  }
  return {};
}

void add_disks(Arguments& arguments, const Shape& shape) {
  // Every chain is pinned here, node by node with its format: what a header says about a backing
  // file is never followed (S27).
  const auto add_file = [&](int descriptor, int set) {
    add(arguments, {"-add-fd", fmt::format("fd={},set={}", descriptor, set)});
  };
  add_file(kImageFd, 1);
  if (shape.layer) add_file(kTemplateRootFd, 2);
  add_file(kRootFd, 3);
  add_file(kDiskFd, 4);
  add_json(arguments, "-blockdev",
           {{"node-name", "image"},
            {"driver", "raw"},
            {"read-only", true},
            {"file", file_node(1, false)}});
  if (shape.layer) {
    add_json(arguments, "-blockdev",
             {{"node-name", "template"},
              {"driver", "qcow2"},
              {"read-only", true},
              {"backing", "image"},
              {"file", file_node(2, false)}});
  }
  add_json(arguments, "-blockdev",
           {{"node-name", "root"},
            {"driver", "qcow2"},
            {"discard", "unmap"},
            {"backing", shape.layer ? "template" : "image"},
            {"file", file_node(3, true)}});
  // Plugged in at the identity step. Raw: no byte of it means anything to QEMU.
  add_json(arguments, "-blockdev",
           {{"node-name", kDiskNode},
            {"driver", "raw"},
            {"discard", "unmap"},
            {"file", file_node(4, true)}});
  add_json(arguments, "-device",
           {{"driver", "virtio-blk-pci"},
            {"id", "root0"},
            {"drive", "root"},
            {"bus", "pcie.0"},
            {"addr", "0x2"},
            // A full host disk pauses the VM instead of corrupting its file system (F10).
            {"werror", "stop"},
            {"rerror", "report"}});
}

void add_network(Arguments& arguments) {
  add(arguments, {"-netdev", fmt::format("tap,id=net,fd={}", kTapFd)});
  add_json(arguments, "-device",
           {{"driver", "virtio-net-pci"},
            {"id", "net0"},
            {"netdev", "net"},
            {"mac", kMachineMac},
            {"romfile", ""},
            {"bus", "pcie.0"},
            {"addr", "0x3"}});
}

void add_console_and_agent(Arguments& arguments) {
  add(arguments,
      {"-chardev", fmt::format("socket,id=console,fd={}", kConsoleFd), "-serial", "chardev:console",
       "-chardev", fmt::format("socket,id=agent,fd={}", kGuestAgentFd), "-chardev",
       fmt::format("socket,id=bell,fd={}", kGuestBellFd)});
  add_json(arguments, "-device",
           {{"driver", "virtio-serial-pci"},
            {"id", "serial0"},
            {"max_ports", 4},
            {"bus", "pcie.0"},
            {"addr", "0x4"}});
  add_json(arguments, "-device",
           {{"driver", "virtserialport"},
            {"id", "agent0"},
            {"bus", "serial0.0"},
            {"chardev", "agent"},
            {"name", kGuestAgentPort}});
  add_json(arguments, "-device",
           {{"driver", "virtserialport"},
            {"id", "bell0"},
            {"bus", "serial0.0"},
            {"chardev", "bell"},
            {"name", kGuestBellPort}});
}

void add_entropy(Arguments& arguments) {
  add_json(arguments, "-object", {{"qom-type", "rng-builtin"}, {"id", "entropy"}});
  add_json(arguments, "-device",
           {{"driver", "virtio-rng-pci"},
            {"id", "rng0"},
            {"rng", "entropy"},
            {"bus", "pcie.0"},
            {"addr", "0x5"}});
}

// Empty until the identity step: what is plugged there belongs to one VM, and vhost-user-fs of QEMU
// 7.2 cannot be part of a saved machine.
void add_ports(Arguments& arguments) {
  int chassis = 0;
  for (const auto& [port, address] : {std::pair(kSharePort, "0x6"), std::pair(kDiskPort, "0x7")}) {
    add_json(arguments, "-device",
             {{"driver", "pcie-root-port"},
              {"id", port},
              {"bus", "pcie.0"},
              {"addr", address},
              {"chassis", ++chassis}});
  }
}

void add_monitor(Arguments& arguments) {
  add(arguments, {"-chardev", fmt::format("socket,id=monitor,fd={}", kMonitorFd), "-mon",
                  "chardev=monitor,mode=control"});
}

void add_sandbox(Arguments& arguments) {
  add(arguments,
      {"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"});
}

Jail plan_jail(const PlanInputs& inputs) {
  Jail jail;
  jail.mounts = program_mounts();
  jail.mounts.push_back({JailMount::Kind::kBindReadOnly, inputs.kernel_path, kJailKernel});
  jail.mounts.push_back({JailMount::Kind::kBindReadOnly, inputs.initramfs_path, kJailInitramfs});
  jail.mounts.push_back({JailMount::Kind::kBind, inputs.memory_path, kJailMemory});
  if (inputs.accelerator == Accelerator::kKvm) {
    jail.mounts.push_back({JailMount::Kind::kDevice, "/dev/kvm", "/dev/kvm"});
    jail.keeps_groups = true;
  }
  jail.ids = {{kQemuId, kQemuId, 1}};
  jail.uid = jail.gid = kQemuId;
  return jail;
}

}  // namespace

nlohmann::json disk_device() {
  return {{"driver", "virtio-blk-pci"},
          {"id", "disk0"},
          {"drive", kDiskNode},
          {"serial", kDiskSerial},
          {"bus", kDiskPort},
          // A full host disk pauses the VM instead of corrupting its file system (F10).
          {"werror", "stop"},
          {"rerror", "report"}};
}

PlannedChild plan_qemu(const PlanInputs& inputs, QemuStart start) {
  PlannedChild child;
  child.name = "qemu";
  // -S: the supervisor looks at the machine before its first instruction runs.
  const Shape shape = shape_of(start, inputs);
  child.argv = {inputs.programs.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-S"};
  if (shape.incoming) add(child.argv, {"-incoming", "defer"});
  add_machine(child.argv, inputs);
  add_boot(child.argv, inputs);
  add_disks(child.argv, shape);
  add_network(child.argv);
  add_console_and_agent(child.argv);
  add_entropy(child.argv);
  add_ports(child.argv);
  if (shape.disk) add(child.argv, {"-device", disk_device().dump()});
  add_monitor(child.argv);
  add_sandbox(child.argv);
  child.environment = {"PATH=/usr/bin", "LANG=C"};
  child.descriptors = {{DescriptorUse::kLog, 1},
                       {DescriptorUse::kLog, 2},
                       {DescriptorUse::kMonitor, kMonitorFd},
                       {DescriptorUse::kGuestAgent, kGuestAgentFd},
                       {DescriptorUse::kGuestBell, kGuestBellFd},
                       {DescriptorUse::kConsole, kConsoleFd},
                       {DescriptorUse::kTap, kTapFd},
                       {DescriptorUse::kRoot, kRootFd},
                       {DescriptorUse::kImage, kImageFd},
                       {DescriptorUse::kDisk, kDiskFd}};
  if (shape.layer) child.descriptors.push_back({DescriptorUse::kTemplateRoot, kTemplateRootFd});
  child.jail = plan_jail(inputs);
  return child;
}

}  // namespace agent_vm

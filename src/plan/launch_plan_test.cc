#include "plan/launch_plan.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "base/text.h"

namespace agent_vm {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

PlanInputs example_inputs() {
  PlanInputs inputs;
  inputs.vm_name = "shop-main";
  inputs.memory_bytes = 2ULL << 30U;
  inputs.cpus = 2;
  inputs.accelerator = Accelerator::kTcg;
  inputs.workspace_path = "/home/ann/vms/shop-main/workspace";
  inputs.memory_path = "/home/ann/vms/shop-main/memory/ram";
  inputs.kernel_path = "/home/ann/images/k/vmlinuz";
  inputs.initramfs_path = "/home/ann/images/k/initrd.img";
  inputs.kernel_arguments = "root=/dev/vda rw";
  inputs.bind_address = "127.0.0.1";
  inputs.ssh_port = 2222;
  inputs.mcp_port = 8000;
  inputs.programs.qemu = "/usr/bin/qemu-system-x86_64";
  inputs.programs.qemu_version = "7.2.22";
  inputs.programs.machine_options = {"acpi", "hpet", "i8042", "sata", "smbus", "usb", "vmport"};
  inputs.programs.virtiofsd = "/usr/lib/qemu/virtiofsd";
  inputs.programs.relay = "/usr/libexec/agent-vm/agent-vm-relay";
  inputs.egress = {.uplink = "/usr/libexec/agent-vm/agent-vm-uplink",
                   .resolver = "/usr/libexec/agent-vm/agent-vm-resolver",
                   .python = "/usr/bin/python3",
                   .proxy_files = "/usr/share/agent-vm/proxy",
                   .policy_folder = "/home/ann/vms/shop-main/network",
                   .certificates = "/etc/ssl/certs/ca-certificates.crt"};
  inputs.ids.uids = {{0, 100000, 1000}, {1000, 1000, 1}, {1001, 101000, 64535}};
  inputs.ids.gids = inputs.ids.uids;
  return inputs;
}

LaunchPlan plan_of(const PlanInputs& inputs) {
  auto plan = make_launch_plan(inputs);
  EXPECT_TRUE(plan) << (plan ? "" : plan.error().message());
  return *plan;
}

// The whole argv, so that no argument comes or goes unnoticed (S2, S7).
TEST(LaunchPlan, S2_GoldenQemuArguments) {
  const std::vector<std::string> golden{
      "/usr/bin/qemu-system-x86_64",
      "-nodefaults",
      "-no-user-config",
      "-display",
      "none",
      "-S",
      "-name",
      "guest=agent-vm,debug-threads=on",
      "-machine",
      "q35,memory-backend=ram,usb=off,graphics=off,sata=off,smbus=off,i8042=off,hpet=off,vmport="
      "off",
      "-accel",
      "tcg,thread=multi",
      "-cpu",
      "max",
      "-smp",
      "2,sockets=1,cores=2,threads=1",
      "-m",
      "2147483648B",
      "-object",
      R"({"qom-type":"memory-backend-file","id":"ram","size":2147483648,"mem-path":"/memory","share":true})",
      "-kernel",
      "/kernel",
      "-initrd",
      "/initramfs",
      "-append",
      "console=ttyS0 quiet loglevel=4 net.ifnames=0 panic=-1 lockdown=integrity root=/dev/vda rw",
      "-no-reboot",
      "-add-fd",
      "fd=8,set=1",
      "-add-fd",
      "fd=7,set=3",
      "-add-fd",
      "fd=9,set=4",
      "-blockdev",
      R"({"node-name":"image","driver":"raw","read-only":true,"file":{"driver":"file","filename":"/dev/fdset/1","read-only":true,"locking":"off"}})",
      "-blockdev",
      R"({"node-name":"root","driver":"qcow2","discard":"unmap","backing":"image","file":{"driver":"file","filename":"/dev/fdset/3","discard":"unmap","locking":"off"}})",
      "-blockdev",
      R"({"node-name":"disk","driver":"raw","discard":"unmap","file":{"driver":"file","filename":"/dev/fdset/4","discard":"unmap","locking":"off"}})",
      "-device",
      R"({"driver":"virtio-blk-pci","id":"root0","drive":"root","bus":"pcie.0","addr":"0x2","werror":"stop","rerror":"report"})",
      "-netdev",
      "tap,id=net,fd=6",
      "-device",
      R"({"driver":"virtio-net-pci","id":"net0","netdev":"net","mac":"52:54:00:00:00:01","romfile":"","bus":"pcie.0","addr":"0x3"})",
      "-chardev",
      "socket,id=console,fd=5",
      "-serial",
      "chardev:console",
      "-chardev",
      "socket,id=agent,fd=4",
      "-chardev",
      "socket,id=bell,fd=11",
      "-device",
      R"({"driver":"virtio-serial-pci","id":"serial0","max_ports":4,"bus":"pcie.0","addr":"0x4"})",
      "-device",
      R"({"driver":"virtserialport","id":"agent0","bus":"serial0.0","chardev":"agent","name":"org.qemu.guest_agent.0"})",
      "-device",
      R"({"driver":"virtserialport","id":"bell0","bus":"serial0.0","chardev":"bell","name":"agent-vm.bell.0"})",
      "-object",
      R"({"qom-type":"rng-builtin","id":"entropy"})",
      "-device",
      R"({"driver":"virtio-rng-pci","id":"rng0","rng":"entropy","bus":"pcie.0","addr":"0x5"})",
      "-device",
      R"({"driver":"pcie-root-port","id":"share","bus":"pcie.0","addr":"0x6","chassis":1})",
      "-device",
      R"({"driver":"pcie-root-port","id":"data","bus":"pcie.0","addr":"0x7","chassis":2})",
      "-chardev",
      "socket,id=monitor,fd=3",
      "-mon",
      "chardev=monitor,mode=control",
      "-sandbox",
      "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
  };
  EXPECT_EQ(plan_of(example_inputs()).qemu.argv, golden);
}

TEST(LaunchPlan, OldQemuIsNotAskedForOptionsThatItDoesNotHave) {
  auto inputs = example_inputs();
  inputs.programs.machine_options = {"acpi", "usb"};
  EXPECT_THAT(plan_of(inputs).qemu.argv, Contains("q35,memory-backend=ram,usb=off,graphics=off"));
}

// A template fits every VM of that size: nothing of one VM is in the machine.
TEST(LaunchPlan, IdentityIsNotInTheArguments) {
  auto inputs = example_inputs();
  const auto first = plan_of(inputs);
  inputs.vm_name = "other-branch";
  inputs.workspace_path = "/elsewhere/workspace";
  inputs.ssh_port = 2223;
  inputs.mcp_port = 8001;
  const auto second = plan_of(inputs);
  EXPECT_EQ(first.qemu.argv, second.qemu.argv);
  EXPECT_EQ(first.resumed_qemu.argv, second.resumed_qemu.argv);
  EXPECT_NE(first.mac_address, second.mac_address);  // which the guest takes with its identity
}

// A suspended VM has its disk from the beginning; below its root is a template's, or none.
TEST(LaunchPlan, AWokenMachineIsTheResumedOneWithItsDisk) {
  auto inputs = example_inputs();
  inputs.saved_on_template = true;
  const auto plan = plan_of(inputs);
  auto expected = plan.resumed_qemu.argv;
  const auto disk = std::ranges::find(expected, disk_device().dump());
  EXPECT_EQ(disk, expected.end());
  const auto monitor = std::ranges::find(expected, "socket,id=monitor,fd=3");
  ASSERT_NE(monitor, expected.end());
  expected.insert(monitor - 1, {"-device", disk_device().dump()});
  EXPECT_EQ(plan.woken_qemu.argv, expected);
  EXPECT_EQ(plan.woken_qemu.descriptors, plan.resumed_qemu.descriptors);
  inputs.saved_on_template = false;
  const auto booted = plan_of(inputs);
  EXPECT_EQ(booted.woken_qemu.descriptors, booted.qemu.descriptors);
  EXPECT_THAT(booted.woken_qemu.argv, Contains("-incoming"));
  EXPECT_THAT(booted.woken_qemu.argv, Not(Contains(HasSubstr("template"))));
}

// The state of a saved machine fits only a machine of the same devices.
TEST(LaunchPlan, AResumedMachineDiffersByItsRootAndByWaiting) {
  const auto plan = plan_of(example_inputs());
  std::vector<std::string> only_resumed;
  for (const auto& argument : plan.resumed_qemu.argv) {
    if (std::ranges::find(plan.qemu.argv, argument) == plan.qemu.argv.end())
      only_resumed.push_back(argument);
  }
  EXPECT_THAT(
      only_resumed,
      testing::ElementsAre(
          "-incoming", "defer", "fd=10,set=2",
          R"({"node-name":"template","driver":"qcow2","read-only":true,"backing":"image","file":{"driver":"file","filename":"/dev/fdset/2","read-only":true,"locking":"off"}})",
          R"({"node-name":"root","driver":"qcow2","discard":"unmap","backing":"template","file":{"driver":"file","filename":"/dev/fdset/3","discard":"unmap","locking":"off"}})"));
}

TEST(LaunchPlan, S4_QemuSeesSystemFilesKernelInitramfsAndMemoryOnly) {
  const auto jail = plan_of(example_inputs()).qemu.jail;
  std::vector<std::string> sources;
  for (const auto& mount : jail.mounts) sources.push_back(mount.source);
  EXPECT_THAT(sources, testing::UnorderedElementsAre(
                           "/usr", "usr/bin", "usr/lib", "usr/lib64", "/etc/ld.so.cache",
                           "/dev/null", "/home/ann/images/k/vmlinuz",
                           "/home/ann/images/k/initrd.img", "/home/ann/vms/shop-main/memory/ram"));
  for (const auto& mount : jail.mounts)
    EXPECT_EQ(mount.kind == JailMount::Kind::kBind, mount.target == "/memory");
  EXPECT_TRUE(jail.capabilities.empty());
  EXPECT_EQ(jail.network, Jail::Network::kEmpty);
}

TEST(LaunchPlan, S11_NoJailKnowsTheIdsOfAnother) {
  const auto plan = plan_of(example_inputs());
  for (const auto& range : plan.virtiofsd.jail.ids)
    EXPECT_LE(range.inside + range.count, kFirstHelperId);
  // Range by range as in the outer map: the kernel refuses a nested range that spans two.
  EXPECT_EQ(plan.virtiofsd.jail.ids,
            (std::vector<IdRange>{{0, 0, 1000}, {1000, 1000, 1}, {1001, 1001, 64519}}));
  EXPECT_EQ(plan.qemu.jail.ids, (std::vector<IdRange>{{kQemuId, kQemuId, 1}}));
  EXPECT_EQ(plan.relay.jail.ids, (std::vector<IdRange>{{kRelayId, kRelayId, 1}}));
}

TEST(LaunchPlan, KvmBringsItsDeviceAndTheHostsProcessor) {
  auto inputs = example_inputs();
  inputs.accelerator = Accelerator::kKvm;
  const auto plan = plan_of(inputs);
  EXPECT_THAT(plan.qemu.argv, Contains("kvm"));
  EXPECT_THAT(plan.qemu.argv, Contains("host"));
  EXPECT_EQ(plan.qemu.jail.mounts.back().source, "/dev/kvm");
  EXPECT_TRUE(plan.qemu.jail.keeps_groups);
  EXPECT_FALSE(plan_of(example_inputs()).qemu.jail.keeps_groups);
  EXPECT_THAT(to_json(plan_of(example_inputs())).dump(), Not(HasSubstr("/dev/kvm")));
}

TEST(LaunchPlan, BothVirtiofsdVersionsServeTheSameFolder) {
  auto inputs = example_inputs();
  EXPECT_THAT(shell_join(plan_of(inputs).virtiofsd.argv),
              HasSubstr("-o source=/workspace -o sandbox=namespace"));
  inputs.programs.virtiofsd_is_rust = true;
  EXPECT_THAT(shell_join(plan_of(inputs).virtiofsd.argv),
              HasSubstr("--shared-dir=/workspace --sandbox=namespace"));
}

TEST(LaunchPlan, RelativePathsAreRefused) {
  auto inputs = example_inputs();
  inputs.kernel_path = "vmlinuz";
  EXPECT_FALSE(make_launch_plan(inputs));
}

// One power each: a socket, the host's network, the CA.
TEST(LaunchPlan, S14_TheWayOutIsThreeChildrenWithOnePowerEach) {
  const LaunchPlan plan = plan_of(example_inputs());
  const auto& [resolver, uplink, proxy] = plan.egress;
  EXPECT_EQ(resolver.jail.network, Jail::Network::kEmpty);
  EXPECT_EQ(uplink.jail.network, Jail::Network::kHost);
  EXPECT_EQ(proxy.jail.network, Jail::Network::kGateway);
  for (const auto* child : {&resolver, &uplink, &proxy}) {
    EXPECT_THAT(child->jail.capabilities, testing::IsEmpty()) << child->name;
    ASSERT_EQ(child->jail.ids.size(), 1U) << child->name;
    EXPECT_GE(child->jail.uid, kFirstHelperId) << child->name;
    for (const auto& mount : child->jail.mounts) {
      EXPECT_NE(mount.kind, JailMount::Kind::kBind) << child->name << " " << mount.target;
    }
  }
  const auto has = [](const PlannedChild& child, DescriptorUse use) {
    return std::ranges::any_of(child.descriptors, [&](const auto& one) { return one.use == use; });
  };
  EXPECT_TRUE(has(proxy, DescriptorUse::kAuthority));
  EXPECT_FALSE(has(uplink, DescriptorUse::kAuthority));
  EXPECT_TRUE(has(proxy, DescriptorUse::kDoor));
  for (const auto* child : {&resolver, &uplink, &plan.qemu, &plan.virtiofsd, &plan.relay})
    EXPECT_FALSE(has(*child, DescriptorUse::kSecrets)) << child->name;
  EXPECT_TRUE(has(proxy, DescriptorUse::kSecrets));
  EXPECT_FALSE(has(proxy, DescriptorUse::kUplinkTap));
  EXPECT_THAT(with_private_ranges(uplink, {"10.1.0.0/16"}).argv, Contains("--allow=10.1.0.0/16"));
  EXPECT_THAT(proxy.argv, testing::ElementsAre("/usr/bin/python3", "-I", "-B", "/proxy/main.py"));
}

}  // namespace
}  // namespace agent_vm

// The launch plan: everything that start will do, as data. It is a pure function of its inputs, so
// `start --dry-run --json` can print it, a golden test can hold all of it, and every hardening
// control can be read in it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "plan/id_map.h"
#include "plan/jail.h"

namespace agent_vm {

// What a descriptor that a child inherits is. The supervisor makes each; the number in the child is
// part of the plan because it stands in the child's arguments.
enum class DescriptorUse {
  kMonitor,        // QMP
  kGuestAgent,     // virtio-serial port of qemu-guest-agent
  kGuestBell,      // virtio-serial port that a program of the guest rings when it has ended
  kConsole,        // the guest's serial console, output only
  kTap,            // the guest's network card
  kRoot,           // the run's own overlay over the root file system, read-write
  kTemplateRoot,   // the template's overlay below it, read-only; only in a warm start
  kImage,          // root of the image, read-only
  kDisk,           // the VM's own disk, read-write
  kShareListener,  // virtiofsd's vhost-user socket
  kSshListener,    // host port -> guest 22
  kMcpListener,    // host port -> guest 8000
  kMcpSocket,      // the VM's Unix socket -> guest 8000
  kActivity,       // the relay's count of open connections
  kUplinkTap,      // the gateway's interface to the world, for the uplink
  kNameSocket,     // UDP port 53 of the gateway
  kDoor,           // where the guest's web connections arrive, listening, for the proxy
  kAuthority,      // key and certificate of the VM's CA, to be read once
  kSecrets,        // the owner's secrets, sealed, for the proxy
  kAudit,          // one JSON object a message, for the audit log
  kLog,            // stdout and stderr of the child
};
const char* to_string(DescriptorUse use);

struct PlannedDescriptor {
  DescriptorUse use;
  int number;
  bool operator==(const PlannedDescriptor&) const = default;
};

struct PlannedChild {
  std::string name;  // "qemu", "virtiofsd", "relay"
  std::vector<std::string> argv;
  std::vector<std::string> environment;
  std::vector<PlannedDescriptor> descriptors;
  Jail jail;
};

enum class Accelerator { kKvm, kTcg };
const char* to_string(Accelerator accelerator);

// What the installed programs can do, found out before planning.
struct HostPrograms {
  std::string qemu;                          // path of qemu-system-x86_64
  std::string qemu_version;                  // "7.2.22"
  std::string qemu_build;                    // the whole line, the distribution's package in it
  std::vector<std::string> machine_options;  // of `-machine q35,help`
  std::string virtiofsd;                     // path
  bool virtiofsd_is_rust = false;
  std::string relay;  // path of agent-vm-relay
};

// What the three children of the way out are made from.
struct EgressInputs {
  std::string uplink;         // path of agent-vm-uplink
  std::string resolver;       // path of agent-vm-resolver
  std::string python;         // path of the interpreter that has mitmproxy
  std::string proxy_files;    // folder of the proxy's own programs
  std::string policy_folder;  // of the VM: policy.json, read again when it changes
  std::string certificates;   // the bundle that upstream certificates are checked against
};

struct EgressPlan {
  PlannedChild resolver;
  PlannedChild uplink;
  PlannedChild proxy;
};
EgressPlan plan_egress(const EgressInputs& inputs);
// The uplink, for these ranges: "10.1.0.0/16".
PlannedChild with_private_ranges(PlannedChild uplink, const std::vector<std::string>& ranges);

struct PlanInputs {
  std::string vm_name;
  std::uint64_t memory_bytes = 0;
  unsigned cpus = 0;
  Accelerator accelerator = Accelerator::kTcg;
  std::string workspace_path;      // absolute
  std::string memory_path;         // absolute: the file that is the guest's memory
  std::string kernel_path;         // absolute, of the image
  std::string initramfs_path;      // absolute, of the image
  std::string kernel_arguments;    // the image's own: how to find its root
  bool saved_on_template = false;  // a suspended VM that lies on a template's overlay
  std::string bind_address;        // numeric
  std::uint16_t ssh_port = 0;
  std::uint16_t mcp_port = 0;
  HostPrograms programs;
  EgressInputs egress;
  IdMap ids;
};

struct LaunchPlan {
  std::string vm_name;
  std::string bind_address;
  std::uint16_t ssh_port = 0;
  std::uint16_t mcp_port = 0;
  std::string mac_address;  // of the guest, once it has its identity
  std::uint64_t memory_bytes = 0;
  bool warm = false;   // a template is resumed; `qemu` is what is started when that fails
  bool wakes = false;  // a suspended guest goes on, in `woken_qemu` and in nothing else
  IdMap ids;
  PlannedChild virtiofsd;
  PlannedChild relay;
  PlannedChild qemu;          // boots the image
  PlannedChild resumed_qemu;  // takes a template's state over, on the same machine
  PlannedChild woken_qemu;    // takes the state of a suspended VM over
  EgressPlan egress;
};

// Fails only on inputs that no machine can run, such as a path that QEMU's option syntax could
// misread.
Result<LaunchPlan> make_launch_plan(const PlanInputs& inputs);

nlohmann::json to_json(const LaunchPlan& plan);

// The VM's own disk, as it is plugged into kDiskPort.
nlohmann::json disk_device();

// Locally administered, the same for the same name.
std::string mac_address_for(const std::string& vm_name);

// Names that appear both in QEMU's arguments and in what the supervisor says over QMP later.
constexpr const char* kSharePort = "share";           // empty root port, for the hot-plugged share
constexpr const char* kDiskPort = "data";             // empty root port, for the hot-plugged disk
constexpr const char* kDiskNode = "disk";             // the VM's own disk, which is plugged there
constexpr const char* kDiskSerial = "agent-vm-disk";  // by which the guest finds it
constexpr const char* kShareTag = "workspace";        // what the guest mounts
constexpr const char* kGuestAgentPort = "org.qemu.guest_agent.0";
constexpr const char* kGuestBellPort = "agent-vm.bell.0";

}  // namespace agent_vm

// Whether a VM runs on hardware virtualization or under emulation.
//
// That /dev/kvm opens proves nothing: there are machines where it does, where even firmware prints
// its banner, and the kernel then hangs. So KVM counts as working only when the image's own kernel
// has printed a line on it, with the processor model to be used, within 5 s.
#pragma once

#include <string>

#include "base/deadline.h"
#include "base/result.h"
#include "config/vm_config.h"
#include "plan/launch_plan.h"

namespace agent_vm {

struct KvmProbe {
  bool works = false;
  std::string reason;  // why not
};

struct ProbeKernel {
  std::string kernel_path;
  std::string initramfs_path;
  std::string image_key;  // names what was probed
};

// Probes, or gives the answer of an earlier probe of the same boot, QEMU and kernel.
KvmProbe probe_kvm(const HostPrograms& programs, const ProbeKernel& kernel,
                   const Deadline& deadline);

struct AcceleratorChoice {
  Accelerator accelerator = Accelerator::kTcg;
  std::string note;  // a line for the user when isolation is weaker than it could be, or empty
};
// kAuto falls back to emulation with a note; kKvm refuses when KVM does not work (S1).
Result<AcceleratorChoice> choose_accelerator(Accel wanted, const HostPrograms& programs,
                                             const ProbeKernel& kernel, const Deadline& deadline);

}  // namespace agent_vm

#include "supervise/saved_machine.h"

#include "image/memory_pages.h"
#include "os/files.h"

namespace agent_vm {

Task<Result<std::uint64_t>> write_machine(Machine& machine, MachineStorage storage,
                                          MachineFiles into, Deadline deadline) {
  // First: it also makes QEMU write what it still holds of the disks.
  CO_CHECK(co_await machine.save_devices(into.devices, deadline));
  CO_TRY(const auto packed,
         pack_memory(storage.memory, storage.memory_bytes, into.pages, into.map));
  CO_CHECK(copy_file(storage.root, into.root));
  co_return packed;
}

}  // namespace agent_vm

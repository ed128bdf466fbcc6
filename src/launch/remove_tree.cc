#include "launch/remove_tree.h"

#include <unistd.h>

#include "base/log.h"
#include "confine/user_namespace.h"
#include "os/files.h"
#include "os/spawn.h"

namespace agent_vm {

Status remove_vm_tree(int dir, const std::string& name) {
  auto removed = remove_tree_at(dir, name);
  if (removed || ::geteuid() == 0) return removed;
  log::info("{}; again with the VM's own ids", removed.error().message());
  const IdMap map = TRY(system_id_map());
  SpawnSpec spec;
  spec.argv = {"remove-tree"};
  spec.descriptors = {{2, 2}, {dir, 3}};
  spec.main_instead_of_exec = [&name] {
    const auto again = remove_tree_at(3, name);
    if (!again) log::error("{}", again.error().message());
    return again ? 0 : 1;
  };
  Child child = TRY(spawn(in_user_namespace(std::move(spec), map, kGuestRoot)));
  const auto exit = TRY(child.wait());
  if (exit.code != 0) return removed;
  return {};
}

}  // namespace agent_vm

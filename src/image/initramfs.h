// The initramfs: our init and the modules that it loads, as an uncompressed cpio archive, because
// an emulated guest would pay for decompressing it.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace agent_vm {

// Module files below /lib/modules/<release>, each after those that it depends on. `modules_dep` and
// `modules_builtin` are the files of these names; a module that is built in is left out, one that
// does not exist is an error. Names as in modprobe: '-' and '_' are the same.
Result<std::vector<std::string>> modules_in_order(const std::vector<std::string>& names,
                                                  std::string_view modules_dep,
                                                  std::string_view modules_builtin);

struct InitramfsModule {
  std::string name;  // without folders, "virtio.ko"
  std::string content;
};

// The archive; every time in it is 0.
std::string make_initramfs(std::string_view init, const std::vector<InitramfsModule>& modules);

}  // namespace agent_vm

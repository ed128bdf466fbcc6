// What an image is made of: the folder image/ of this installation, the programs for the guest, and
// what the VM's configuration adds. Two recipes that are equal give the same image from one lock.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/vm_config.h"
#include "image/tree.h"
#include "image/tree_rules.h"

namespace agent_vm {

// Where this installation keeps the image's files; see share/agent-vm/image and libexec/agent-vm.
struct RecipeSource {
  std::string image_folder;           // with packages/, files/ and tree.conf
  std::string guest_programs_folder;  // with agent-mcp, agent-vm-init and the others

  // Beside the running program: the same in an installation and in a build folder.
  static Result<RecipeSource> of_this_program();
};

struct Recipe {
  ImageChoice choice;                 // as asked for, with its lists sorted and without duplicates
  std::vector<std::string> packages;  // all of them, by name, sorted
  std::vector<std::string> npm;       // all of npm's specs, sorted
  std::vector<TreeRule> rules;
  Tree files;        // what image/files and the guest programs add; contents inside
  std::string init;  // /init of the initramfs
  std::string hash;  // of everything above
};

// Reads the recipe. Errors name what is missing, and an unknown variant the known ones.
Result<Recipe> load_recipe(const RecipeSource& source, const ImageChoice& choice);

}  // namespace agent_vm

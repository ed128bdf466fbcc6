#include "launch/image_choice.h"

#include "base/text.h"
#include "image/recipe.h"
#include "launch/prepare.h"

namespace agent_vm {
namespace {

std::string build_command(const ImageChoice& choice) {
  std::vector<std::string> argv{"agent-vm", "image", "build"};
  if (choice.variant != ImageChoice().variant)
    argv.insert(argv.end(), {"--variant", choice.variant});
  for (const auto& package : choice.packages) argv.insert(argv.end(), {"--package", package});
  for (const auto& package : choice.npm) argv.insert(argv.end(), {"--npm", package});
  return shell_join(argv);
}

}  // namespace

ImageChoice image_choice_of(const VmConfig& config) {
  ImageChoice choice = config.image;
  if (config.sudo) choice.packages.emplace_back("sudo");
  return choice;
}

Result<ChosenImage> choose_image(const VmConfig& config, const std::optional<DiskRecord>& disk) {
  const ImageChoice choice = image_choice_of(config);
  const std::string& vm_name = config.name;
  const ImageStore store = TRY(ImageStore::of_user());
  const Recipe recipe = TRY(load_recipe(TRY(RecipeSource::of_this_program()), choice));
  const auto found = store.find_image(recipe.hash);
  const std::optional<Image> newest = found ? *found : std::nullopt;
  if (!disk) {
    if (newest) return ChosenImage{*newest, false};
    Error error =
        found ? Error(ErrorKind::kNotFound, fmt::format("there is no image for VM '{}'", vm_name))
              : found.error();
    return tl::unexpected(std::move(error).with_hint(build_command(choice)));
  }
  if (newest && newest->key == disk->image_key) return ChosenImage{*newest, false};
  auto own = store.open_image(disk->image_key);
  if (!own) {
    return tl::unexpected(
        Error(own.error())
            .within(fmt::format("the disk of VM '{}' needs image {}", vm_name, disk->image_key))
            .with_hint(fmt::format("agent-vm reset {}   (a new disk; the workspace stays)",
                                   shell_quote(vm_name))));
  }
  return ChosenImage{std::move(*own), newest.has_value()};
}

}  // namespace agent_vm

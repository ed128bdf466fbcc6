// From the packages' files to what boots: applies a recipe to them, and writes the root file
// system, the kernel and the initramfs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "image/recipe.h"

namespace agent_vm {

struct ComposeInput {
  const Recipe* recipe = nullptr;
  std::string packages_tar;      // all packages, installed
  std::string npm_folder;        // with node_modules/; empty: no npm packages
  std::uint64_t time = 0;        // of every file
  std::string identity;          // see Ext4Options
  std::string output_directory;  // where root.img, vmlinuz and initrd.img are made
  std::function<Status(double)> progress;
};

struct Composition {
  std::string kernel_release;                           // "6.1.0-37-cloud-amd64"
  std::map<std::string, std::string> package_versions;  // as the guest's dpkg knows them
};

Result<Composition> compose_image(const ComposeInput& input);

// Name and version of every installed package in /var/lib/dpkg/status. (Images hold packages of one
// architecture, so a name is unique.)
std::map<std::string, std::string> parse_dpkg_status(std::string_view status);

// /etc/shadow with every password changed on that day, since 1970: the tools that make users write
// the day on which they run.
std::string with_change_day(std::string_view shadow, std::uint64_t day);

}  // namespace agent_vm

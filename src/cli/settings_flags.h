// The options of create and update that set what a TOML file may set too.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/result.h"
#include "config/settings.h"

namespace agent_vm {

struct SettingsFlags {
  std::string memory;
  std::string disk;
  std::string cpus;
  std::string accel;
  std::string image_variant;
  std::vector<std::string> allowed_origins;
  std::string network;

  void add_to(CLI::App& verb);
  // Checks what was given.
  Result<Settings> settings() const;
};

}  // namespace agent_vm

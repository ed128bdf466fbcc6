#include "cli/settings_flags.h"

#include "base/text.h"
#include "config/names.h"

namespace agent_vm {

void SettingsFlags::add_to(CLI::App& verb) {
  verb.add_option("--memory", memory, "memory of the VM, such as 2G")->type_name("SIZE");
  verb.add_option("--cpus", cpus, "number of cpus")->type_name("N");
  verb.add_option("--disk", disk, "largest size of the disk, such as 20G")->type_name("SIZE");
  verb.add_option("--accel", accel, "auto: kvm when it works; kvm: or refuse; tcg: emulate")
      ->type_name("auto|kvm|tcg");
  verb.add_option("--image-variant", image_variant,
                  "which sets of packages, joined by + (see agent-vm.toml(5))")
      ->type_name("NAME");
  verb.add_option("--allow-origin", allowed_origins,
                  "origin that may call the MCP endpoint; can be repeated")
      ->type_name("ORIGIN")
      ->allow_extra_args(false);  // what follows is not another one
  verb.add_option("--network", network, "what the VM may reach (see: agent-vm net --help)")
      ->type_name("off|allowlist|monitor");
}

Result<Settings> SettingsFlags::settings() const {
  Settings settings;
  if (!memory.empty()) settings.memory_bytes = TRY_CONTEXT(parse_size(memory), "--memory");
  if (!disk.empty()) settings.disk_bytes = TRY_CONTEXT(parse_size(disk), "--disk");
  if (!cpus.empty()) {
    const auto number = parse_unsigned(cpus);
    if (!number || *number < 1 || *number > VmConfig::kMaxCpus) {
      return fail(ErrorKind::kInvalidInput, "--cpus: '{}' is not a number from 1 to {}",
                  escape_line(cpus), static_cast<unsigned>(VmConfig::kMaxCpus));
    }
    settings.cpus = static_cast<unsigned>(*number);
  }
  if (!accel.empty()) settings.accel = TRY_CONTEXT(parse_accel(accel), "--accel");
  if (!image_variant.empty()) settings.image_variant = image_variant;
  if (!network.empty()) {
    settings.network_mode = TRY_CONTEXT(parse_network_mode(network), "--network");
  }
  if (!allowed_origins.empty()) {
    for (const auto& origin : allowed_origins) TRY_CONTEXT(valid_origin(origin), "--allow-origin");
    settings.allowed_origins = allowed_origins;
  }
  return settings;
}

}  // namespace agent_vm

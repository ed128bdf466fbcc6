// The single steps. Each can be repeated: a guest that rebooted goes through all of them again.
#pragma once

#include "identity/identity.h"

namespace agent_vm {

Status add_entropy(std::string_view bytes);
Status set_clock(std::int64_t nanoseconds);
Status set_hostname(const std::string& hostname);
Status set_machine_id(const std::string& machine_id);
Status configure_network(const Identity& identity);
Status install_ssh_keys(const Identity& identity);
Status install_mcp(const Identity& identity);
Status set_sudo(bool allowed);
// Waits, by the kernel's own events, up to 20 s for the hot-plugged device to appear.
Status mount_workspace(const std::string& tag);
// Those that the steps above would otherwise load one by one.
Status load_modules();
// Until systemd has nothing left to start.
Status await_boot();
Status start_units(const std::vector<std::string>& units);

}  // namespace agent_vm

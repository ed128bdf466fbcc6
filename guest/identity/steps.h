// The single steps. Each can be repeated: a guest that rebooted goes through all of them again.
#pragma once

#include "identity/identity.h"

namespace agent_vm {

Status add_entropy(std::string_view bytes);
Status set_clock(std::int64_t nanoseconds);
// Until it is given back, this program runs before every other that does not do so itself. What it
// starts does not inherit that.
Status take_precedence();
Status give_precedence_back();
// The kernel makes the boot's id once; a resumed guest has its template's, and gets one of its own.
// The journal learns of it when it is restarted, which the host does when the start is over.
Status renew_boot_id();
Status set_hostname(const std::string& hostname);
Status set_machine_id(const std::string& machine_id);
Status configure_network(const Identity& identity);
Status install_ssh_keys(const Identity& identity);
Status install_authority(const Identity& identity);
// Leaves a file alone that says the same already.
Status configure_packages(const PackageSettings& settings);
// As variables of the agent service and of SSH sessions.
Status install_placeholders(const std::map<std::string, std::string>& placeholders);
Status install_mcp(const Identity& identity);
Status set_sudo(bool allowed);
// Waits, by the kernel's own events, up to 20 s for the hot-plugged device to appear.
Status mount_workspace(const std::string& tag);
// sshd and systemd run since before the VM's disk was there: they learn what the guest had changed
// of their files. Services that the guest had enabled start, as after a boot.
Status stop_outdated_sshd();
Status adopt_changes();
// Loads the drivers that this guest will ever have, and then locks the kernel: until the next boot
// no module comes or goes, whoever asks for it.
Status lock_modules();
// sshd runs, with a key that nobody will see: it reads the keys anew for each connection, so that
// the identity step has only to replace the file. And what else that step runs has been read from
// disk.
Status start_ahead();
// Until systemd has nothing left to start.
Status await_boot();
// Nothing is left that has to be written to the disk.
Status write_out();
// So that renew_boot_id() knows.
Status mark_as_template();
Status start_units(const std::vector<std::string>& units);

}  // namespace agent_vm

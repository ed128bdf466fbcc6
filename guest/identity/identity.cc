#include "identity/identity.h"

#include <algorithm>
#include <chrono>
#include <iterator>

#include "base/text.h"
#include "identity/disk.h"
#include "identity/rest.h"
#include "identity/steps.h"

namespace agent_vm {

using nlohmann::json;

namespace {

template <typename T>
Status take(json& document, const char* name, T& into) {
  const auto found = document.find(name);
  if (found == document.end())
    return fail(ErrorKind::kInvalidInput, "the identity has no '{}'", name);
  try {
    found->get_to(into);
  } catch (const json::exception&) {
    return fail(ErrorKind::kInvalidInput, "the identity's '{}' has the wrong type", name);
  }
  document.erase(found);
  return {};
}

Result<PackageSettings> take_packages(json& document) {
  json packages;
  TRY(take(document, "packages", packages));
  PackageSettings settings;
  TRY(take(packages, "apt_sources", settings.apt_sources));
  TRY(take(packages, "apt_settings", settings.apt_settings));
  TRY(take(packages, "npm", settings.npm));
  TRY(take(packages, "pip", settings.pip));
  return settings;
}

}  // namespace

Result<Identity> parse_identity(std::string_view json_text) {
  json document = json::parse(json_text, nullptr, false);
  if (!document.is_object())
    return fail(ErrorKind::kInvalidInput, "the identity is not a JSON object");
  Identity identity;
  std::string entropy;
  TRY(take(document, "hostname", identity.hostname));
  TRY(take(document, "machine_id", identity.machine_id));
  TRY(take(document, "mac_address", identity.mac_address));
  TRY(take(document, "address", identity.address));
  TRY(take(document, "prefix", identity.prefix));
  TRY(take(document, "gateway", identity.gateway));
  TRY(take(document, "clock_ns", identity.clock_ns));
  TRY(take(document, "entropy", entropy));
  TRY(take(document, "ssh_host_key", identity.ssh_host_key));
  TRY(take(document, "ssh_host_key_public", identity.ssh_host_key_public));
  TRY(take(document, "authorized_key", identity.authorized_key));
  TRY(take(document, "mcp_config", identity.mcp_config));
  TRY(take(document, "mcp_token", identity.mcp_token));
  TRY(take(document, "authority", identity.authority));
  TRY(take(document, "authority_hash", identity.authority_hash));
  identity.packages = TRY(take_packages(document));
  TRY(take(document, "placeholders", identity.placeholders));
  TRY(take(document, "sudo", identity.sudo));
  TRY(take(document, "disk_serial", identity.disk_serial));
  TRY(take(document, "share_tag", identity.share_tag));
  TRY(take(document, "units", identity.units));
  if (!document.empty()) {
    return fail(ErrorKind::kInvalidInput, "the identity has an unknown member '{}'",
                document.begin().key());
  }
  identity.entropy = TRY_CONTEXT(base64_decode(entropy), "the identity's entropy");
  return identity;
}

json to_json(const IdentityReport& report) {
  json steps = json::array();
  for (const auto& step : report.steps)
    steps.push_back({{"name", step.name}, {"ms", step.milliseconds}});
  json document = {{"ok", report.failed_step.empty()}, {"steps", std::move(steps)}};
  if (!report.failed_step.empty()) {
    document["failed_step"] = report.failed_step;
    document["error"] = report.error;
    document["evidence"] = report.evidence;
  }
  return document;
}

IdentityReport run_steps(const Steps& steps) {
  IdentityReport report;
  for (const auto& [name, step] : steps) {
    const auto begin = std::chrono::steady_clock::now();
    if (const Status status = step(); !status) {
      report.failed_step = name;
      report.error = status.error().message();
      report.evidence = status.error().evidence();
      break;
    }
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    report.steps.push_back({name, took.count()});
  }
  return report;
}

namespace {

Steps operator+(Steps first, Steps then) {
  first.insert(first.end(), std::make_move_iterator(then.begin()),
               std::make_move_iterator(then.end()));
  return first;
}

// What a guest is known by. Before its address: whoever comes meets this VM's keys.
Steps names_and_keys(const Identity& identity) {
  return {
      {"boot id", [] { return renew_boot_id(); }},
      {"hostname", [&] { return set_hostname(identity.hostname); }},
      {"machine-id", [&] { return set_machine_id(identity.machine_id); }},
      {"ssh-keys", [&] { return install_ssh_keys(identity); }},
  };
}

Steps address_and_settings(const Identity& identity) {
  return {
      // Before what takes time: the owner's login begins now, beside the rest.
      {"network", [&] { return configure_network(identity); }},
      {"authority", [&] { return install_authority(identity); }},
      {"packages", [&] { return configure_packages(identity.packages); }},
      {"placeholders", [&] { return install_placeholders(identity.placeholders); }},
      {"mcp", [&] { return install_mcp(identity); }},
      {"sudo", [&] { return set_sudo(identity.sudo); }},
      {"workspace", [&] { return mount_workspace(identity.share_tag); }},
  };
}

}  // namespace

IdentityReport apply_identity(const Identity& identity) {
  const Steps begin{
      // Entropy first: nothing may draw random numbers that another VM of the same template draws.
      {"entropy", [&] { return add_entropy(identity.entropy); }},
      {"clock", [&] { return set_clock(identity.clock_ns); }},
      // Each mount and each device wakes the service manager and udev, which would look at them one
      // by one, on the processor that the owner waits for.
      {"precedence", [] { return take_precedence(); }},
      // A resumed guest's are, and then this costs nothing. Before the disk: what the guest's root
      // left there has no part in it.
      {"modules", [] { return lock_modules(); }},
      // Before all that is written: from here on the guest's files last.
      {"disk", [&] { return mount_disk(identity.disk_serial); }},
  };
  const Steps sshd{{"sshd", [] { return stop_outdated_sshd(); }}};
  const Steps end{
      {"precedence given back", [] { return give_precedence_back(); }},
      {"changes", [] { return adopt_changes(); }},
      {"units", [&] { return start_units(identity.units); }},
  };
  return run_steps(begin + names_and_keys(identity) + sshd + address_and_settings(identity) + end);
}

IdentityReport wake(const Identity& identity) {
  return run_steps({
      {"entropy", [&] { return add_entropy(identity.entropy); }},
      {"clock", [&] { return set_clock(identity.clock_ns); }},
      {"connections", [] { return end_connections(); }},
      // The owner may have changed them meanwhile.
      {"authority", [&] { return install_authority(identity); }},
      {"packages", [&] { return configure_packages(identity.packages); }},
      {"placeholders", [&] { return install_placeholders(identity.placeholders); }},
      {"mcp", [&] { return install_mcp(identity); }},
      {"workspace", [&] { return mount_workspace(identity.share_tag); }},
      {"units", [&] { return start_units(identity.units); }},
  });
}

IdentityReport go_on(const Identity& identity) {
  return run_steps({
      {"clock", [&] { return set_clock(identity.clock_ns); }},
      {"workspace", [&] { return mount_workspace(identity.share_tag); }},
      {"units", [&] { return start_units(identity.units); }},
  });
}

IdentityReport become(const Identity& identity) {
  const Steps begin{
      {"entropy", [&] { return add_entropy(identity.entropy); }},
      {"clock", [&] { return set_clock(identity.clock_ns); }},
      {"connections", [] { return end_connections(); }},
      {"mark", [] { return mark_as_template(); }},
  };
  const Steps end{{"units", [&] { return start_units(identity.units); }}};
  return run_steps(begin + names_and_keys(identity) + address_and_settings(identity) + end);
}

IdentityReport settle() {
  return run_steps({
      {"modules", [] { return lock_modules(); }},
      {"boot", [] { return await_boot(); }},
      {"start ahead", [] { return start_ahead(); }},
      {"mark", [] { return mark_as_template(); }},
      {"disk", [] { return write_out(); }},
  });
}

}  // namespace agent_vm

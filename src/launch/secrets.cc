#include "launch/secrets.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "os/files.h"
#include "os/random.h"
#include "os/run.h"
#include "state/trust_store.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr std::size_t kMostValue = 16384;

std::vector<std::string> whole_environment() {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) all.emplace_back(*entry);
  return all;
}

Result<std::string> fetch(const SecretSource& secret, const Deadline& deadline) {
  if (!secret.environment.empty()) {
    const char* value = std::getenv(secret.environment.c_str());  // NOLINT(concurrency-mt-unsafe)
    if (value == nullptr) return fail("the variable {} is not set", secret.environment);
    return std::string(value);
  }
  if (!secret.file.empty()) return read_file(secret.file, kMostValue);
  // The owner's own command, which may need his agents and sockets.
  const CommandOutput output = TRY(run_checked({.argv = secret.command,
                                                .environment = whole_environment(),
                                                .working_directory = "/",
                                                .max_output = kMostValue,
                                                .deadline = deadline}));
  return output.out;
}

Result<std::string> fetch_value(const SecretSource& secret, const Deadline& deadline) {
  const std::string text = TRY(fetch(secret, deadline));
  const std::string value(trim(text));
  // Eight, so that masking it in answers does not mangle them.
  if (value.size() < 8 || value.size() > kMostValue) {
    return fail("{} characters are no secret: it must have from 8 to {}", value.size(), kMostValue);
  }
  const bool plain = std::ranges::all_of(value, [](char c) { return c > ' ' && c < 127; });
  if (!plain) return fail("it must be ASCII without spaces, to stand in a header");
  return value;
}

Result<std::string> new_placeholder() {
  return "agent-vm-placeholder-" + TRY(random_hex(20));
}

json known_placeholders(const VmDirectory& vm) {
  if (!exists_at(vm.fd(), kPlaceholders)) return json::object();
  const auto text = vm.read_small_file(kPlaceholders);
  json known = text ? json::parse(*text, nullptr, false) : json();
  return known.is_object() ? known : json::object();
}

Result<Fd> sealed(const std::string& text) {
  Fd memory(::memfd_create("secrets", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory) return fail_errno(errno, "cannot make memory for the secrets");
  TRY(write_all(memory.get(), text));
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  if (::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0)
    return fail_errno(errno, "cannot seal the secrets");
  return memory;
}

}  // namespace

Result<Fd> gather_secrets(const VmDirectory& vm, const Deadline& deadline,
                          std::vector<std::string>& notes) {
  const std::string config_path = TRY(owner_config_path());
  const Settings settings = TRY(read_owner_settings(config_path));
  const json known = known_placeholders(vm);
  json placeholders = json::object();
  json list = json::array();
  for (const auto& [name, secret] : settings.secrets) {
    const auto value = fetch_value(secret, deadline);
    if (!value) {
      notes.push_back(
          fmt::format("the VM does without secret {}: {}", name, value.error().message()));
      continue;
    }
    const auto old = known.find(name);
    const bool keeps = old != known.end() && old->is_string();
    placeholders[name] = keeps ? old->get<std::string>() : TRY(new_placeholder());
    list.push_back({{"name", name},
                    {"placeholder", placeholders[name]},
                    {"value", *value},
                    {"hosts", secret.hosts},
                    {"header", secret.header}});
  }
  if (!placeholders.empty() || !known.empty())
    TRY(write_file_atomic(vm.fd(), kPlaceholders, placeholders.dump(1) + "\n", 0600));
  return sealed(list.dump());
}

}  // namespace agent_vm

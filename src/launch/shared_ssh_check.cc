#include "launch/shared_ssh_check.h"

#include <fcntl.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/log.h"
#include "base/text.h"
#include "os/files.h"
#include "os/lock.h"
#include "os/process_identity.h"

namespace agent_vm {

using nlohmann::json;

namespace {

constexpr const char* kFolder = "ssh";
constexpr const char* kRecord = "last-check.json";
constexpr std::size_t kMaxRecord = 65536;

// Of the clock that all processes of one boot share.
std::int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

std::optional<SshCheck> read_record(int folder, std::uint16_t port, std::int64_t not_before) {
  const auto text = read_file_at(folder, kRecord, kMaxRecord);
  if (!text) return std::nullopt;
  const json record = json::parse(*text, nullptr, false);
  const auto boot = boot_id();
  // A value of another type is no answer either.
  if (!boot || !record.is_object() || record.value("boot_id", json()) != *boot ||
      record.value("port", json()) != port) {
    return std::nullopt;
  }
  const json began = record.value("began_ns", json());
  const json authenticated = record.value("authenticated", json());
  const json milliseconds = record.value("milliseconds", json());
  const json step = record.value("failed_step", json());
  const json detail = record.value("detail", json());
  if (!began.is_number_integer() || began.get<std::int64_t>() < not_before ||
      !authenticated.is_boolean() || !milliseconds.is_number() || !step.is_string() ||
      !detail.is_string()) {
    return std::nullopt;
  }
  return SshCheck{authenticated.get<bool>(), milliseconds.get<double>(), step.get<std::string>(),
                  detail.get<std::string>()};
}

void write_record(int folder, std::uint16_t port, std::int64_t began, const SshCheck& check) {
  const auto boot = boot_id();
  if (!boot) return;
  const json record = {{"boot_id", *boot},
                       {"port", port},
                       {"began_ns", began},
                       {"authenticated", check.authenticated},
                       {"milliseconds", check.milliseconds},
                       {"failed_step", check.failed_step},
                       {"detail", check.detail}};
  const std::string text = record.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  // Without it the others log in themselves.
  if (const auto written = write_file_atomic(folder, kRecord, text, 0600); !written)
    log::warn("{}", written.error().message());
}

}  // namespace

SshCheck shared_ssh_check(const VmDirectory& vm, const VmConfig& config, const Deadline& deadline) {
  const std::int64_t asked = now_ns();
  const SshTarget target = ssh_target(vm, config);
  const auto folder = open_beneath(vm.fd(), kFolder, O_RDONLY | O_DIRECTORY);
  if (!folder) return check_ssh(target, deadline);
  const auto turn = DirectoryLock::acquire(folder->get(), deadline);
  if (!turn) {
    return {.failed_step = "command",
            .detail = "another command's check of SSH did not end in time"};
  }
  if (auto answer = read_record(folder->get(), target.port, asked)) return *answer;
  const std::int64_t began = now_ns();
  SshCheck check = check_ssh(target, deadline);
  write_record(folder->get(), target.port, began, check);
  return check;
}

}  // namespace agent_vm

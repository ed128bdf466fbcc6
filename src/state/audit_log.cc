#include "state/audit_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <ctime>
#include <optional>

#include "base/text.h"
#include "os/files.h"
#include "os/sha256.h"

namespace agent_vm {

using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr const char* kHeadFile = "head.json";
constexpr std::size_t kMostHead = 4096;
constexpr std::size_t kMostFile = 64U << 20U;
constexpr std::string_view kChainMember = R"(,"chain":")";
constexpr std::size_t kHash = 64;

std::string older(int number) {
  return fmt::format("{}.{}", kAuditFile, number);
}

std::string now_in_milliseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  std::tm parts{};
  ::gmtime_r(&now.tv_sec, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     now.tv_nsec / 1'000'000);
}

std::string next_chain(const std::string& before, std::string_view body) {
  return sha256_hex(before + "\n" + std::string(body));
}

struct Line {
  std::string body;  // without the chain
  std::string chain;
};

std::optional<Line> take_apart(const std::string& line) {
  const std::size_t tail = kChainMember.size() + kHash + 2;
  if (line.size() <= tail || !line.ends_with("\"}")) return std::nullopt;
  const std::size_t at = line.size() - tail;
  if (line.compare(at, kChainMember.size(), kChainMember) != 0) return std::nullopt;
  return Line{line.substr(0, at) + "}", line.substr(at + kChainMember.size(), kHash)};
}

struct Head {
  std::uint64_t sequence = 0;
  std::string chain;
};

std::optional<Head> read_head(int folder) {
  const auto text = read_file_at(folder, kHeadFile, kMostHead);
  if (!text) return std::nullopt;
  const json value = json::parse(*text, nullptr, false);
  if (!value.is_object() || !value.contains("seq") || !value["seq"].is_number_unsigned() ||
      !value.contains("chain") || !value["chain"].is_string()) {
    return std::nullopt;
  }
  return Head{value["seq"].get<std::uint64_t>(), value["chain"].get<std::string>()};
}

}  // namespace

Result<AuditLog> AuditLog::open(int dir, std::string vm_name, std::size_t file_bytes) {
  TRY(make_directory_at(dir, kAuditFolder, 0700));
  AuditLog log;
  log.vm_name_ = std::move(vm_name);
  log.file_bytes_ = file_bytes;
  log.folder_ = TRY(open_beneath(dir, kAuditFolder, O_RDONLY | O_DIRECTORY));
  if (const auto head = read_head(log.folder_.get())) {
    log.sequence_ = head->sequence;
    log.chain_ = head->chain;
  }
  log.head_ = TRY(open_beneath(log.folder_.get(), kHeadFile, O_WRONLY | O_CREAT, 0600));
  TRY(log.open_file());
  return log;
}

Status AuditLog::open_file() {
  file_ = TRY(open_beneath(folder_.get(), kAuditFile, O_WRONLY | O_CREAT | O_APPEND, 0600));
  struct stat info {};
  if (::fstat(file_.get(), &info) != 0) return fail_errno(errno, "cannot examine the audit log");
  size_ = static_cast<std::size_t>(info.st_size);
  return {};
}

Status AuditLog::rotate() {
  for (int number = kAuditOlderFiles; number > 0; --number) {
    const std::string from = number == 1 ? kAuditFile : older(number - 1);
    if (::renameat(folder_.get(), from.c_str(), folder_.get(), older(number).c_str()) != 0 &&
        errno != ENOENT) {
      return fail_errno(errno, "cannot put the audit log aside");
    }
  }
  return open_file();
}

Status AuditLog::append(const json& record) {
  ordered_json line = {{"seq", sequence_ + 1}, {"time", now_in_milliseconds()}, {"vm", vm_name_}};
  if (record.is_object()) {
    for (const auto& [key, value] : record.items()) {
      if (value.is_primitive() && key != "chain" && !line.contains(key)) line[key] = value;
    }
  }
  const std::string body = line.dump(-1, ' ', true, json::error_handler_t::replace);
  const std::string chain = next_chain(chain_, body);
  const std::string text =
      fmt::format("{}{}{}\"}}\n", body.substr(0, body.size() - 1), kChainMember, chain);
  if (size_ + text.size() > file_bytes_ && size_ > 0) TRY(rotate());
  TRY(write_all(file_.get(), text));
  size_ += text.size();
  ++sequence_;
  chain_ = chain;
  // In place, and always of one length: it costs less than the line itself.
  const std::string head = fmt::format("{}\n", json{{"seq", sequence_}, {"chain", chain_}}.dump());
  if (::pwrite(head_.get(), head.data(), head.size(), 0) != std::ssize(head))
    return fail_errno(errno, "cannot write the head of the audit log");
  return {};
}

Result<AuditReport> verify_audit_log(int dir) {
  AuditReport report;
  const auto folder = open_beneath(dir, kAuditFolder, O_RDONLY | O_DIRECTORY);
  if (!folder) return report;  // nothing was ever recorded
  // What was before the oldest line is known only while no file has been dropped by a rotation.
  std::optional<std::string> before;
  if (!exists_at(folder->get(), older(kAuditOlderFiles))) before = "";
  for (int number = kAuditOlderFiles; number >= 0; --number) {
    const std::string name = number == 0 ? kAuditFile : older(number);
    if (!exists_at(folder->get(), name)) continue;
    std::uint64_t number_in_file = 0;
    for (const auto& text : split_lines(TRY(read_file_at(folder->get(), name, kMostFile)))) {
      ++report.lines;
      ++number_in_file;
      const auto line = take_apart(text);
      if (!line || (before && next_chain(*before, line->body) != line->chain)) {
        report.problem =
            fmt::format("{}: line {} does not follow from the one before it", name, number_in_file);
        return report;
      }
      before = line->chain;
    }
  }
  const auto head = read_head(folder->get());
  if (head && head->chain != before.value_or("")) {
    report.problem = fmt::format("lines are missing at the end: {} were recorded", head->sequence);
  } else if (!head && report.lines > 0) {
    report.problem = "audit/head.json, which names the last line, cannot be read";
  }
  return report;
}

}  // namespace agent_vm

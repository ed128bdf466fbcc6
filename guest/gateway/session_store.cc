#include "gateway/session_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/fd.h"
#include "base/log.h"

namespace agent_vm::gateway {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kSchema = 1;
constexpr std::size_t kMaxRecords = 1024;
constexpr std::uintmax_t kMaxRecordBytes = 4U << 20;

Result<mcp::SessionRecord> parse_record(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || json.value("schema", 0) != kSchema) return fail("not a session record");
  try {
    mcp::SessionRecord record;
    record.id = json.at("id");
    record.server = json.at("server");
    record.protocol_version = json.at("protocol_version");
    record.initialize = json.at("initialize");
    record.initialized = json.at("initialized");
    record.log_level = json.value("log_level", "");
    record.subscriptions = json.value("subscriptions", std::set<std::string>());
    const auto initialize = mcp::parse_message(record.initialize);
    if (!initialize || initialize->method != "initialize" || record.protocol_version.empty()) {
      return fail("without a usable initialize request");
    }
    return record;
  } catch (const Json::exception& exception) {
    return fail("{}", exception.what());
  }
}

void flush(const std::string& path, int flags) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | flags));
  // It may have ended, and its record with it.
  if (fd && ::fsync(fd.get()) != 0) log::warn("cannot flush {}: {}", path, errno_text(errno));
}

}  // namespace

SessionStore::SessionStore(std::string directory) : directory_(std::move(directory)) {
  if (!directory_.empty()) flusher_ = std::make_unique<boost::asio::thread_pool>(1);
}

Status SessionStore::prepare() const {
  if (directory_.empty()) return {};
  if (::mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "cannot make the state directory {}", directory_);
  }
  if (::access(directory_.c_str(), R_OK | W_OK | X_OK) != 0) {
    return fail_errno(errno, "cannot use the state directory {}", directory_);
  }
  return {};
}

Status SessionStore::save(const mcp::SessionRecord& record) const {
  if (directory_.empty() || record.initialize.size() > kMaxRecordBytes / 2) return {};
  const Json json = {{"schema", kSchema},
                     {"id", record.id},
                     {"server", record.server},
                     {"protocol_version", record.protocol_version},
                     {"initialize", record.initialize},
                     {"initialized", record.initialized},
                     {"log_level", record.log_level},
                     {"subscriptions", record.subscriptions}};
  const std::string text = json.dump();
  const std::string path = path_of(record.id);
  const std::string temporary = path + ".tmp";
  {
    const Fd fd(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd) return fail_errno(errno, "cannot write {}", temporary);
    if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
      ::unlink(temporary.c_str());
      return fail_errno(errno, "cannot write {}", temporary);
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    return fail_errno(errno, "cannot write {}", path);
  }
  boost::asio::post(*flusher_, [path, directory = directory_] {
    flush(path, 0);
    flush(directory, O_DIRECTORY);
  });
  return {};
}

void SessionStore::remove(const std::string& id) const {
  if (!directory_.empty()) ::unlink(path_of(id).c_str());
}

std::vector<mcp::SessionRecord> SessionStore::load_all() const {
  std::vector<mcp::SessionRecord> records;
  if (directory_.empty()) return records;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    Result<mcp::SessionRecord> record = fail("not a regular file of a sensible size");
    if (entry.symlink_status(error).type() == fs::file_type::regular &&
        entry.file_size(error) <= kMaxRecordBytes && entry.path().extension() == ".json" &&
        records.size() < kMaxRecords) {
      std::ostringstream text;
      text << std::ifstream(entry.path(), std::ios::binary).rdbuf();
      record = parse_record(text.str());
      if (record && record->id != entry.path().stem()) record = fail("under another name");
    }
    if (record) {
      records.push_back(std::move(*record));
    } else {
      log::warn("session record {} removed: {}", entry.path().filename().string(),
                record.error().message());
      fs::remove(entry.path(), error);
    }
  }
  return records;
}

}  // namespace agent_vm::gateway

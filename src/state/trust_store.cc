#include "state/trust_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "config/json_fields.h"
#include "os/files.h"
#include "os/lock.h"
#include "os/sha256.h"
#include "state/vm_directory.h"

namespace agent_vm {
namespace {

constexpr const char* kTrustFile = "trust.json";
constexpr std::uint64_t kSchema = 1;
constexpr std::size_t kMaxTrustFile = 4U << 20U;

struct Agreement {
  std::string sha256;
  std::string trusted_at;
};
using Agreements = std::map<std::string, Agreement>;  // by repository

Result<Agreements> read_agreements(int dir) {
  const auto text = read_file_at(dir, kTrustFile, kMaxTrustFile);
  if (!text) {
    if (text.error().kind() == ErrorKind::kNotFound) return Agreements();
    return tl::unexpected(text.error());
  }
  const nlohmann::json root = TRY(parse_json(*text, kTrustFile));
  JsonFields fields = TRY(JsonFields::of(root, kTrustFile));
  if (TRY(fields.number("schema", ~0ULL)) != kSchema) {
    return fail("trust.json was written by another version of agent-vm");
  }
  JsonFields trusted = TRY(fields.object("trusted"));
  Agreements agreements;
  for (const auto& repository : trusted.keys()) {
    JsonFields one = TRY(trusted.object(repository));
    agreements[repository] = {TRY(one.text("sha256")), TRY(one.text("trusted_at"))};
  }
  return agreements;
}

Status write_agreements(int dir, const Agreements& agreements) {
  nlohmann::ordered_json trusted = nlohmann::ordered_json::object();
  for (const auto& [repository, one] : agreements) {
    trusted[repository] = {{"sha256", one.sha256}, {"trusted_at", one.trusted_at}};
  }
  const nlohmann::ordered_json root = {{"schema", kSchema}, {"trusted", trusted}};
  return write_file_atomic(dir, kTrustFile, root.dump(2) + "\n", 0600);
}

}  // namespace

Result<std::string> owner_config_path() {
  // NOLINTBEGIN(concurrency-mt-unsafe): single-threaded, and read before anything else runs.
  const char* config = std::getenv("XDG_CONFIG_HOME");
  if (config != nullptr && config[0] == '/') return std::string(config) + "/agent-vm";
  const char* home = std::getenv("HOME");
  // NOLINTEND(concurrency-mt-unsafe)
  if (home == nullptr || home[0] != '/') {
    return fail(ErrorKind::kInvalidInput, "HOME is not set, so there is no configuration to read");
  }
  return std::string(home) + "/.config/agent-vm";
}

Result<Settings> read_owner_settings(const std::string& config_path) {
  const std::string path = config_path + "/config.toml";
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR) return Settings();
    return fail_errno(errno, "cannot open {}", escape_line(path));
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail_errno(errno, "cannot examine {}", path);
  if ((info.st_uid != ::geteuid() && info.st_uid != 0) || (info.st_mode & 022U) != 0) {
    return fail(ErrorKind::kInvalidInput, "refusing {}: others than you can write to it",
                escape_line(path));
  }
  const std::string text =
      TRY_CONTEXT(read_all(fd.get(), kMaxSettingsFile), "{}", escape_line(path));
  return parse_settings(text, path, SettingsOwner::kOwner);
}

Result<bool> TrustStore::is_trusted(const std::string& repository,
                                    const std::string& sha256) const {
  const auto dir = open_directory(path_);
  if (!dir) return false;
  const Agreements agreements = TRY(read_agreements(dir->get()));
  const auto found = agreements.find(repository);
  return found != agreements.end() && found->second.sha256 == sha256;
}

Status TrustStore::trust(const std::string& repository, const std::string& sha256,
                         const Deadline& deadline) {
  const Fd dir = TRY(open_private_directory(path_));
  const DirectoryLock lock = TRY(DirectoryLock::acquire(dir.get(), deadline));
  Agreements agreements = TRY(read_agreements(dir.get()));
  agreements[repository] = {sha256, utc_now()};
  return write_agreements(dir.get(), agreements);
}

Result<bool> TrustStore::forget(const std::string& repository, const Deadline& deadline) {
  const Fd dir = TRY(open_private_directory(path_));
  const DirectoryLock lock = TRY(DirectoryLock::acquire(dir.get(), deadline));
  Agreements agreements = TRY(read_agreements(dir.get()));
  if (agreements.erase(repository) == 0) return false;
  TRY(write_agreements(dir.get(), agreements));
  return true;
}

Result<RepositoryFile> read_repository_file(const std::string& top) {
  const Fd dir = TRY(open_directory(top));
  RepositoryFile file;
  auto text = read_file_at(dir.get(), kRepositoryFile, kMaxSettingsFile);
  if (!text) {
    if (text.error().kind() == ErrorKind::kNotFound) return file;
    return tl::unexpected(std::move(text).error().with_kind(ErrorKind::kInvalidInput));
  }
  file.present = true;
  file.text = std::move(*text);
  file.sha256 = sha256_hex(file.text);
  file.settings = TRY(parse_settings(file.text, kRepositoryFile, SettingsOwner::kRepository));
  return file;
}

}  // namespace agent_vm

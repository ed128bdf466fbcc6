// Which repositories' files their owner has read and agreed to, by content: when the file changes,
// the agreement is void.
#pragma once

#include <string>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"
#include "config/settings.h"

namespace agent_vm {

// The owner's own configuration: $XDG_CONFIG_HOME/agent-vm or ~/.config/agent-vm.
Result<std::string> owner_config_path();

// config.toml there; absent: nothing is set. Refuses a file that others can write to.
Result<Settings> read_owner_settings(const std::string& config_path);

// trust.json there.
class TrustStore {
 public:
  explicit TrustStore(std::string config_path) : path_(std::move(config_path)) {}

  // A store that cannot be understood is an error, and nothing is trusted.
  Result<bool> is_trusted(const std::string& repository, const std::string& sha256) const;
  Status trust(const std::string& repository, const std::string& sha256, const Deadline& deadline);
  // False when there was nothing to forget.
  Result<bool> forget(const std::string& repository, const Deadline& deadline);

 private:
  std::string path_;
};

// The agent-vm.toml of a repository, read through no link.
struct RepositoryFile {
  bool present = false;
  std::string text;
  std::string sha256;
  Settings settings;
};
Result<RepositoryFile> read_repository_file(const std::string& top);

}  // namespace agent_vm

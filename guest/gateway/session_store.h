// Session records on disk, so that a restart of the gateway does not end its clients' sessions.
#pragma once

#include <boost/asio/thread_pool.hpp>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "mcp/session.h"

namespace agent_vm::gateway {

class SessionStore {
 public:
  // An empty directory name: nothing is kept, and every call succeeds.
  explicit SessionStore(std::string directory);

  Status prepare() const;
  // A killed gateway's record is there at once, a killed guest's a moment later.
  Status save(const mcp::SessionRecord& record) const;
  void remove(const std::string& id) const;
  // Records that cannot be read are removed: their clients start anew.
  std::vector<mcp::SessionRecord> load_all() const;

 private:
  std::string path_of(const std::string& id) const { return directory_ + "/" + id + ".json"; }
  std::string directory_;
  // Waits for the disk, because the event loop must not.
  std::unique_ptr<boost::asio::thread_pool> flusher_;
};

}  // namespace agent_vm::gateway

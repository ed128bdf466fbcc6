// A small internet of this test's own: a network namespace with web servers, an authoritative name
// server that writes down every query, and a capture of everything that arrives; and another
// namespace, which takes the place of the host's: VMs that are started from it see just this
// internet. Needs root.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "support/program.h"

namespace agent_vm::test {

class Internet {
 public:
  // Makes both and moves this process into the second one, with a resolv.conf and trusted
  // certificates to match; the destructor moves it back.
  explicit Internet(const std::string& folder);
  ~Internet();
  Internet(const Internet&) = delete;
  Internet& operator=(const Internet&) = delete;

  // ok.test/app.git is a repository with one commit, "Served".

  // What this machine lacks for one with VMs in it, or empty.
  static std::string missing();
  // Why it could not be made; empty when all is well.
  const std::string& problem() const { return problem_; }

  // Lines so far: "ok.test GET /path" for each request that was served, the names that were asked
  // for, and "tcp 203.0.113.10 443" for each connection or stray packet that arrived: all that did
  // until now, because packets() sends one of its own behind them and waits for it.
  std::vector<std::string> requests() const;
  std::vector<std::string> queries() const;
  std::vector<std::string> packets() const;
  // "ok.test Authorization: Bearer ..." for each that a server got.
  std::vector<std::string> credentials() const;
  void forget() const;

  static constexpr const char* kHost = "198.51.100.1";      // where the VMs' host is
  static constexpr const char* kResolver = "198.51.100.2";  // the name server
  static constexpr const char* kOk = "203.0.113.10";        // ok.test, bad.test, rebind.test
  static constexpr const char* kEvil = "203.0.113.66";      // evil.test

 private:
  std::string make();

  std::string folder_;
  std::string problem_;
  std::string directory_;
  Fd old_network_;
  Fd old_mounts_;
  std::unique_ptr<Background> servers_;
};

}  // namespace agent_vm::test

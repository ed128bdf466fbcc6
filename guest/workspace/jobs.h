// Commands: run in the foreground for a while, then by themselves in the background.
//
// A tool call that lasts longer than a minute is given up by common clients, so exec answers after
// at most 50 s: with the result, or with the name of a job that goes on and can be polled, fed and
// ended. A job's process group ends with it; what wants to outlive its command must daemonise.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "process/child.h"
#include "workspace/root.h"
#include "workspace/tool_result.h"

namespace agent_vm::workspace {

using Reply = std::function<void(ToolResult)>;

struct ExecOptions {
  std::string command;            // for a shell; or:
  std::vector<std::string> argv;  // run as it is
  std::string cwd = ".";
  process::Environment environment;  // added to the service's own
  std::string stdin_text;
  std::chrono::seconds wait{50};    // then it goes on in the background
  std::chrono::seconds timeout{0};  // then it is ended; 0: never
};

// Lives on the event loop; not thread-safe.
class Jobs {
 public:
  static constexpr std::size_t kMaxRunning = 64;
  static constexpr std::size_t kMaxFinished = 64;

  Jobs(boost::asio::any_io_executor executor, const Root& root)
      : executor_(std::move(executor)), root_(root) {}
  ~Jobs();
  Jobs(const Jobs&) = delete;
  Jobs& operator=(const Jobs&) = delete;

  // Each calls `reply` exactly once, unless the Jobs are destroyed before. The job's number is
  // returned so that a cancelled call can end its command; 0 when none was started.
  std::uint64_t exec(const ExecOptions& options, Reply reply);
  void poll(std::uint64_t job, std::chrono::seconds wait, Reply reply);
  void input(std::uint64_t job, const std::string& text, bool close, std::chrono::seconds wait,
             Reply reply);
  void signal(std::uint64_t job, const std::string& name, Reply reply);

  // Ends a job whose caller does not want it any more.
  void cancel(std::uint64_t job);
  // Ends all of them.
  void stop_all();
  std::size_t running() const;

 private:
  struct Job;
  Result<std::shared_ptr<Job>> start(const ExecOptions& options);
  void wait_for(const std::shared_ptr<Job>& job, std::chrono::seconds wait, Reply reply);
  void answer(const std::shared_ptr<Job>& job);
  std::shared_ptr<Job> find(std::uint64_t id, const Reply& reply);
  void forget_oldest_finished();

  boost::asio::any_io_executor executor_;
  const Root& root_;
  std::uint64_t next_id_ = 1;
  std::map<std::uint64_t, std::shared_ptr<Job>> jobs_;
};

}  // namespace agent_vm::workspace

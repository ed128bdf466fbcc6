// The built-in MCP server `workspace`: what a coding agent needs before anything is installed.
//
// It speaks the same lines as a stdio server would, so that the gateway treats both alike. File
// tools run on worker threads, because a file system may be slow; commands run on the event loop.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/thread_pool.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "workspace/jobs.h"
#include "workspace/root.h"
#include "workspace/schema.h"

namespace agent_vm::workspace {

// Shared by all sessions: jobs outlive the session that started them, so that an agent that had to
// reconnect finds them again.
class Service {
 public:
  Service(boost::asio::any_io_executor executor, Root root);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // Runs a tool whose arguments were checked. `reply` is called on the event loop. Returns the
  // number of a job that was started, or 0.
  std::uint64_t call(const std::string& tool, const Json& arguments, Reply reply);

  Jobs& jobs() { return jobs_; }
  const Root& root() const { return *root_; }
  // Waits for nothing: helpers that still run are left to the process's end.
  void stop();

 private:
  void run_on_worker(std::function<Result<ToolResult>()> tool, Reply reply);

  boost::asio::any_io_executor executor_;
  std::unique_ptr<Root> root_;
  Jobs jobs_;
  boost::asio::thread_pool workers_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// One client's conversation.
class Conversation : public std::enable_shared_from_this<Conversation> {
 public:
  using Send = std::function<void(std::string line)>;
  Conversation(std::shared_ptr<Service> service, Send send)
      : service_(std::move(service)), send_(std::move(send)) {}

  void receive(std::string_view line);
  // No more answers.
  void close() { send_ = nullptr; }

 private:
  void handle_request(const Json& id, const std::string& method, const Json& params);
  void call_tool(const Json& id, const Json& params);
  void send(const Json& message);
  void send_error(const Json& id, int code, const std::string& message);

  std::shared_ptr<Service> service_;
  Send send_;
  std::map<std::string, std::uint64_t> calls_;  // request id as JSON -> job
};

}  // namespace agent_vm::workspace

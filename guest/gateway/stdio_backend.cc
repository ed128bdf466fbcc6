#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "gateway/backend.h"
#include "workspace/environment.h"

namespace agent_vm::gateway {
namespace {

class StdioBackend : public Backend {
 public:
  StdioBackend(boost::asio::any_io_executor executor, StdioServerConfig config,
               std::string default_cwd, ServerState& state, std::size_t max_line_bytes)
      : executor_(std::move(executor)),
        config_(std::move(config)),
        default_cwd_(std::move(default_cwd)),
        state_(state),
        max_line_bytes_(max_line_bytes) {}
  ~StdioBackend() override { stop({}); }

  Status start(Events events) override {
    events_ = std::move(events);
    process::SpawnSpec spec;
    spec.argv = config_.command;
    spec.environment = workspace::child_environment();
    for (const auto& [key, value] : config_.environment) spec.environment[key] = value;
    spec.cwd = config_.cwd.empty() ? default_cwd_ : config_.cwd;
    process::Child::Events child_events;
    child_events.on_stdout = [this](std::string_view bytes) { receive(bytes); };
    child_events.on_stderr = [this](std::string_view bytes) { state_.stderr_lines.append(bytes); };
    child_events.on_exit = [this](process::ExitStatus status) {
      // The session may destroy this backend from inside its handler.
      const auto on_exit = std::move(events_.on_exit);
      events_ = {};
      if (on_exit) on_exit(process::to_string(status));
    };
    ++state_.starts;
    child_ = TRY(process::Child::start(executor_, std::move(spec), std::move(child_events)));
    pid_ = child_->pid();
    return {};
  }

  void send(std::string line) override {
    line += '\n';
    if (child_) child_->write(std::move(line));
  }
  std::size_t queued_bytes() const override { return child_ ? child_->queued_bytes() : 0; }
  void when_drained_below(std::size_t bytes, std::function<void()> action) override {
    if (child_) child_->when_drained_below(bytes, std::move(action));
  }
  void pause(bool paused) override {
    if (child_) child_->pause_output(paused);
  }
  void stop(const process::StopPolicy& policy) override {
    events_ = {};
    if (!child_) return;
    child_->abandon();
    child_->stop(policy);
    child_.reset();  // it keeps itself until it is reaped
  }
  pid_t pid() const override { return child_ && child_->running() ? pid_ : 0; }

 private:
  // Splits into lines. A line over the limit is dropped whole, and counted like any other junk.
  void receive(std::string_view bytes) {
    while (!bytes.empty()) {
      const std::size_t end = bytes.find('\n');
      const std::string_view part = bytes.substr(0, end);
      if (!skipping_ && line_.size() + part.size() > max_line_bytes_) {
        skipping_ = true;
        line_.clear();
        line_.shrink_to_fit();
        ++state_.junk_lines;
      }
      const bool complete = end != std::string_view::npos;
      bytes.remove_prefix(complete ? end + 1 : bytes.size());
      if (!skipping_) {
        if (complete && line_.empty()) {
          deliver(part);
        } else {
          line_ += part;
          if (complete) {
            const std::string line = std::exchange(line_, {});
            deliver(line);
          }
        }
      }
      if (complete) skipping_ = false;
      if (!events_.on_line) return;  // stopped from inside the handler
    }
  }

  void deliver(std::string_view line) {
    if (!trim(line).empty() && events_.on_line) {
      const auto on_line = events_.on_line;
      on_line(line);
    }
  }

  boost::asio::any_io_executor executor_;
  StdioServerConfig config_;
  std::string default_cwd_;
  ServerState& state_;
  std::size_t max_line_bytes_;
  Events events_;
  std::shared_ptr<process::Child> child_;
  pid_t pid_ = 0;
  std::string line_;
  bool skipping_ = false;
};

}  // namespace

std::unique_ptr<Backend> make_stdio_backend(boost::asio::any_io_executor executor,
                                            StdioServerConfig config,
                                            const std::string& default_cwd, ServerState& state,
                                            std::size_t max_line_bytes) {
  return std::make_unique<StdioBackend>(std::move(executor), std::move(config), default_cwd, state,
                                        max_line_bytes);
}

}  // namespace agent_vm::gateway

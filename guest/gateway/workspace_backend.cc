#include <boost/asio/post.hpp>

#include "gateway/backend.h"

namespace agent_vm::gateway {
namespace {

class WorkspaceBackend : public Backend {
 public:
  WorkspaceBackend(boost::asio::any_io_executor executor,
                   std::shared_ptr<workspace::Service> service)
      : executor_(std::move(executor)), service_(std::move(service)) {}
  ~WorkspaceBackend() override { stop({}); }

  Status start(Events events) override {
    auto shared = std::make_shared<Events>(std::move(events));
    conversation_ = std::make_shared<workspace::Conversation>(
        service_, [executor = executor_, weak = std::weak_ptr(shared)](std::string line) {
          // Never from inside send(): the session is in the middle of taking the request.
          boost::asio::post(executor, [weak, line = std::move(line)] {
            if (const auto alive = weak.lock()) alive->on_line(line);
          });
        });
    events_ = std::move(shared);
    return {};
  }
  void send(std::string line) override {
    if (conversation_) conversation_->receive(line);
  }
  void when_drained_below(std::size_t /*bytes*/, std::function<void()> action) override {
    action();
  }
  void stop(const process::StopPolicy& /*policy*/) override {
    if (conversation_) conversation_->close();
    conversation_.reset();
    events_.reset();
  }

 private:
  boost::asio::any_io_executor executor_;
  std::shared_ptr<workspace::Service> service_;
  std::shared_ptr<workspace::Conversation> conversation_;
  std::shared_ptr<Events> events_;
};

}  // namespace

std::unique_ptr<Backend> make_workspace_backend(boost::asio::any_io_executor executor,
                                                std::shared_ptr<workspace::Service> service) {
  return std::make_unique<WorkspaceBackend>(std::move(executor), std::move(service));
}

}  // namespace agent_vm::gateway

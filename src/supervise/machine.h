// One QEMU process and the channels to it. A start that resumes a template and fails makes a second
// one, which boots.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "os/async.h"
#include "qmp/guest_agent.h"
#include "qmp/qmp_client.h"
#include "supervise/capped_log.h"
#include "supervise/children.h"

namespace agent_vm {

class Machine {
 public:
  struct Handlers {
    std::function<void(Child::Exit)> on_end;  // after the console has been read to its end
    QmpClient::EventHandler on_event;
  };
  struct Logs {
    std::shared_ptr<CappedLog> console;
    std::shared_ptr<CappedLog> qemu;
  };

  // Starts QEMU, stopped. `files` has the disks and the card; the channels are added here.
  static Result<std::shared_ptr<Machine>> start(asio::io_context& io, const PlannedChild& plan,
                                                DescriptorTable files, const Logs& logs,
                                                Handlers handlers);
  ~Machine();

  SupervisedChild& qemu() { return *qemu_; }
  QmpClient& qmp() { return *qmp_; }
  GuestAgent& agent() { return *agent_; }
  // Set when the guest agent has opened its port, and when the machine or the VM has ended.
  Event& agent_open() { return agent_open_; }
  // Of QEMU's SHUTDOWN event.
  const std::string& shutdown_reason() const { return shutdown_reason_; }

  Task<Status> connect(Deadline deadline);
  Task<Status> stop_processors(Deadline deadline);
  Task<Status> run_processors(Deadline deadline);

  // Writes what the machine is but for its memory, which is a file already, to `file`. The
  // processors are stopped, before and after.
  Task<Status> save_devices(int file, Deadline deadline);
  // Takes that over, in a machine that was started for it and whose memory has been filled.
  Task<Status> load_devices(int file, Deadline deadline);

  // Takes a device away, with the guest's consent.
  Task<Status> unplug(std::string id, Deadline deadline);

  // Kills QEMU; nobody hears of it.
  Task<void> abandon();
  void close_channels();

 private:
  Machine() = default;
  static void on_event(const std::shared_ptr<Machine>& self, const std::string& name,
                       const nlohmann::json& data);
  static Task<void> on_end(std::shared_ptr<Machine> self, Child::Exit exit);
  static Task<void> follow_console(asio::io_context& io, std::shared_ptr<Machine> self, Fd socket,
                                   std::shared_ptr<CappedLog> log);
  Task<Status> migrate(const char* command, std::string name, int file, Deadline deadline);

  std::shared_ptr<SupervisedChild> qemu_;
  std::unique_ptr<QmpClient> qmp_;
  std::unique_ptr<GuestAgent> agent_;
  std::weak_ptr<Machine> self_;
  Handlers handlers_;
  Event agent_open_;
  Event console_ended_;
  std::shared_ptr<Event> migrated_;
  std::shared_ptr<Event> unplugged_;
  std::string unplugging_;  // the device that is being taken away
  std::string migration_;   // the last status that QEMU told
  std::string shutdown_reason_;
  bool abandoned_ = false;
};

// Two connected stream sockets (or SOCK_SEQPACKET).
struct SocketPair {
  Fd ours;
  Fd theirs;
};
Result<SocketPair> make_socket_pair(int type);

// The end of a channel whose other end is pumped into `log`: a child's stdout and stderr.
Result<Fd> log_channel(asio::io_context& io, std::shared_ptr<CappedLog> log);

}  // namespace agent_vm

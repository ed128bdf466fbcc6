// One running VM.
//
// Theory of operation. The supervisor is one coroutine that goes through the start, then sleeps
// until something ends the VM, then tears down in reverse order. Everything else (children's ends,
// QMP events, requests on the control socket, signals, the starting command's death) only ever
// calls end_with(), which keeps the *first* cause and wakes whoever waits. So there is one way out
// of every state, and the report names the cause, not the last of its consequences.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/vm_config.h"
#include "launch/prepare.h"
#include "net/gateway.h"
#include "os/async.h"
#include "state/vm_directory.h"
#include "supervise/capped_log.h"
#include "supervise/egress.h"
#include "supervise/machine.h"
#include "supervise/template.h"

namespace agent_vm {

// Why a VM ended. `crashed`: something that should have gone on did not.
struct EndCause {
  bool crashed = false;
  std::string reason;                 // one sentence
  std::vector<std::string> evidence;  // console tail, QEMU's last words
};

class Supervisor {
 public:
  using Progress = std::function<void(const std::string& step, const std::string& text)>;

  Supervisor(asio::io_context& io, const VmDirectory& vm, const VmConfig& config,
             PreparedStart prepared);

  // From nothing to a VM that has its identity and whose MCP endpoint has answered. On failure
  // everything is torn down already.
  Task<Result<nlohmann::json>> start(Deadline deadline, Progress progress);

  // Sleeps until the VM ends, however it ends, then tears down and records why.
  Task<void> run_to_end();

  // Ends the VM now; the first cause stays. Safe at any time, from any callback.
  void end_with(EndCause cause);
  // Asks the guest, then QEMU, then the kernel; returns which of them it took: "guest", "qmp",
  // "kill".
  Task<std::string> shut_down(std::chrono::milliseconds grace);
  // Set when everything is gone and recorded.
  Event& torn_down() { return torn_down_; }

  // Makes the way out agree with the configuration as it is now.
  Status apply_network();
  NetworkMode network_mode() const { return egress_.mode(); }

  // What `status` needs and only the supervisor knows. `with_guest`: asks the guest, too, up to the
  // deadline.
  Task<nlohmann::json> status(Deadline deadline, bool with_guest);

  // Where the time of the guest's boot went; see supervise/boot_profile.h.
  Task<Result<nlohmann::json>> boot_profile(Deadline deadline);

  // Saves the VM on the disk and ends it. `force`: processes of the guest that have files of the
  // workspace open lose them, instead of being a reason not to. On an error the VM goes on.
  Task<Result<nlohmann::json>> suspend(bool force, Deadline deadline);

  // Leaves all that makes another VM of this one in `kForkFolder` of the VM's directory: the saved
  // guest, the disk, the workspace. The VM goes on, also on an error. Says for how long it stood.
  Task<Result<nlohmann::json>> fork(bool force, Deadline deadline);

  // Gives the gateway in the guest the MCP servers that config.json names now.
  Task<Result<nlohmann::json>> reload_mcp(Deadline deadline);

 private:
  static constexpr std::size_t kEvidenceLines = 15;  // of a log, in a report
  static constexpr std::chrono::seconds kQmpPatience{10};

  enum class State { kStarting, kRunning, kSuspending, kForking, kStopping };

  // supervisor.cc: what runs on the host, and its end.
  Status prepare_host();
  Status open_logs();
  Status start_helpers();
  Status start_share();
  Status start_relay();
  // The template's overlay, on which the run's lies, or -1.
  int layer_below_root() const;
  Status start_machine(const PlannedChild& plan, const Deadline& deadline);
  Task<Status> go(Deadline deadline, const Progress& progress);
  void phase(const char* name);
  void on_qmp_event(const std::string& name, const nlohmann::json& data);
  void on_qemu_end(Child::Exit exit);
  Task<void> on_virtiofsd_end(Child::Exit exit);
  Task<void> go_on_when_there_is_room();
  Error why_ended() const;
  Task<void> tear_down();
  void record_end();
  // bring_up.cc: the roads to a guest whose agent answers.
  Task<Status> bring_up_guest(Deadline deadline, const Progress& progress);
  Task<Status> resume_guest(Deadline deadline);
  Task<Status> wake_guest(Deadline deadline);
  // Descriptors of a saved guest's memory (see memory_pages.h) and devices.
  struct SavedGuest {
    int pages;
    int map;
    int devices;
  };
  // Both of the above: up to the guest's next instruction, and from there until its agent answers.
  Task<Status> load_guest(const PlannedChild& plan, SavedGuest from, Deadline deadline);
  Task<Status> run_loaded_guest(Deadline deadline);
  Task<Status> boot_guest(Deadline deadline, const Progress& progress);
  Task<Status> await_guest(Deadline deadline, const Progress& progress);
  // Leaves the booted guest as a template for the next start. Whatever goes wrong, this VM goes on.
  Task<void> leave_template(Deadline deadline, const Progress& progress);
  MachineStorage storage() const;
  Task<Status> plug_share(Deadline deadline);
  Task<Status> plug_disk(Deadline deadline);
  // `mode`: of agent-vm-identity, or empty.
  Task<Status> give_identity(std::string mode, Deadline deadline);
  Task<Status> confirm_endpoint(Deadline deadline);
  // Tells a resumed guest's journal that this is another boot than the template's.
  Task<void> renew_journal();
  // suspend.cc: the guest lets the share go, and takes it up again.
  Task<Status> rest(bool force, Deadline deadline);
  Task<Status> unplug_share(Deadline deadline);
  Task<Status> write_suspended(SuspendedDraft& draft, Deadline deadline);
  Task<Status> save(Deadline deadline);
  Task<Status> copy_all(int folder, SuspendedDraft& draft, Deadline deadline);
  Task<Status> copy_workspace(Deadline deadline);
  Task<Status> go_on(Deadline deadline);
  // status.cc
  Task<void> follow_activity(Fd socket);
  Task<nlohmann::json> guest_status(Deadline deadline);

  asio::io_context& io_;
  const VmDirectory& vm_;
  const VmConfig& config_;
  const PreparedStart prepared_;
  std::vector<std::string> notes_;  // of the preparation, and what came on the way

  State state_ = State::kStarting;
  bool paused_ = false;
  std::string paused_why_;
  bool waits_for_room_ = false;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_activity_ = started_;
  unsigned connections_ = 0;
  bool booted_ = false;  // not resumed
  // While a template is tried: a QEMU that ends then, also before it has said why, is no end of the
  // VM.
  bool may_boot_instead_ = false;
  nlohmann::json identity_steps_;
  nlohmann::json phases_ = nlohmann::json::array();  // docs/control-protocol.md, the start's result

  // In the order in which they are made; torn down the other way round.
  Fd ssh_listener_;
  Fd mcp_listener_;
  Fd mcp_socket_;
  Fd disk_;
  Fd image_;
  Fd memory_;
  Fd root_;  // the run's overlay
  Fd lifeline_;
  Child init_;
  Gateway gateway_;
  Fd share_connection_;
  std::shared_ptr<CappedLog> console_;
  std::shared_ptr<CappedLog> qemu_log_;
  std::shared_ptr<CappedLog> virtiofsd_log_;
  std::shared_ptr<CappedLog> relay_log_;
  Fd activity_writer_;
  std::shared_ptr<SupervisedChild> virtiofsd_;
  std::chrono::milliseconds stood_{0};  // the processors, during the last fork
  bool share_is_out_ = false;           // unplugged, and virtiofsd ends for that reason
  std::shared_ptr<SupervisedChild> relay_;
  std::shared_ptr<Machine> machine_;
  Egress egress_{io_, vm_, prepared_.plan, gateway_, prepared_.secrets, prepared_.git_broker};
  int relay_restarts_ = 0;

  // The question to the guest that is under way: whoever asks meanwhile gets its answer, too.
  std::shared_ptr<Event> asking_;
  nlohmann::json guest_answer_;

  std::optional<EndCause> cause_;
  Event ended_;
  Event torn_down_;
};

}  // namespace agent_vm

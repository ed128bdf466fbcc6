#include "workspace/jobs.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>

#include "base/text.h"
#include "workspace/environment.h"

namespace agent_vm::workspace {
namespace {

using Clock = std::chrono::steady_clock;
constexpr process::StopPolicy kStop{std::chrono::milliseconds(100),
                                    std::chrono::milliseconds(2000)};

struct SignalName {
  const char* name;
  int number;
};
constexpr std::array<SignalName, 8> kSignals = {{{"INT", SIGINT},
                                                 {"TERM", SIGTERM},
                                                 {"KILL", SIGKILL},
                                                 {"HUP", SIGHUP},
                                                 {"QUIT", SIGQUIT},
                                                 {"USR1", SIGUSR1},
                                                 {"USR2", SIGUSR2},
                                                 {"WINCH", SIGWINCH}}};

ToolResult tool_error(const Error& error) {
  return {error.message(), true};
}

}  // namespace

struct Jobs::Job {
  explicit Job(boost::asio::any_io_executor executor)
      : wait_timer(executor), timeout_timer(executor) {}

  std::uint64_t id = 0;
  std::shared_ptr<process::Child> child;
  OutputBuffer output;
  Clock::time_point started = Clock::now();
  Clock::time_point ended;
  std::optional<process::ExitStatus> exit;
  bool timed_out = false;
  bool read_to_end = false;  // its end was reported
  Reply waiting;             // one caller at a time
  boost::asio::steady_timer wait_timer;
  boost::asio::steady_timer timeout_timer;
};

Jobs::~Jobs() {
  for (auto& [id, job] : jobs_) {
    if (job->child) job->child->abandon();
  }
}

Result<std::shared_ptr<Jobs::Job>> Jobs::start(const ExecOptions& options) {
  if (running() >= kMaxRunning) {
    return fail("{} commands are running already; end one with exec_signal", kMaxRunning);
  }
  const Fd cwd = TRY(root_.open_directory(options.cwd));
  process::SpawnSpec spec;
  spec.argv = options.argv;
  if (spec.argv.empty()) {
    const char* shell = ::access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh";
    spec.argv = {shell, "-c", options.command};
  }
  spec.environment = child_environment();
  spec.environment["TERM"] = "dumb";
  spec.environment["PAGER"] = "cat";
  spec.environment["GIT_PAGER"] = "cat";
  spec.environment["GIT_TERMINAL_PROMPT"] = "0";
  for (const auto& [key, value] : options.environment) spec.environment[key] = value;
  spec.cwd_fd = cwd.get();

  auto job = std::make_shared<Job>(executor_);
  job->id = next_id_++;
  const std::weak_ptr<Job> weak = job;
  process::Child::Events events;
  events.on_stdout = [weak](std::string_view bytes) {
    if (const auto alive = weak.lock()) alive->output.append(bytes);
  };
  events.on_exit = [this, weak](process::ExitStatus status) {
    const auto alive = weak.lock();
    if (!alive) return;
    alive->exit = status;
    alive->ended = Clock::now();
    alive->timeout_timer.cancel();
    answer(alive);
    forget_oldest_finished();
  };
  job->child = TRY(process::Child::start(executor_, std::move(spec), std::move(events)));
  if (!options.stdin_text.empty()) job->child->write(options.stdin_text);
  if (options.timeout.count() > 0) {
    job->timeout_timer.expires_after(options.timeout);
    job->timeout_timer.async_wait([weak](boost::system::error_code error) {
      const auto alive = weak.lock();
      if (error || !alive) return;
      alive->timed_out = true;
      alive->child->signal(SIGTERM);
      alive->child->stop(kStop);
    });
  }
  jobs_[job->id] = job;
  return job;
}

std::uint64_t Jobs::exec(const ExecOptions& options, Reply reply) {
  const auto job = start(options);
  if (!job) {
    reply(tool_error(job.error()));
    return 0;
  }
  const std::uint64_t id = (*job)->id;
  wait_for(*job, options.wait, std::move(reply));
  return id;
}

void Jobs::wait_for(const std::shared_ptr<Job>& job, std::chrono::seconds wait, Reply reply) {
  // A second caller takes the first one's place, who is told what there is.
  if (job->waiting) answer(job);
  job->waiting = std::move(reply);
  if (job->exit || wait.count() <= 0) {
    answer(job);
    return;
  }
  job->wait_timer.expires_after(wait);
  job->wait_timer.async_wait(
      [this, weak = std::weak_ptr<Job>(job)](boost::system::error_code error) {
        const auto alive = weak.lock();
        if (!error && alive) answer(alive);
      });
}

void Jobs::answer(const std::shared_ptr<Job>& job) {
  if (!job->waiting) return;
  job->wait_timer.cancel();
  const Reply reply = std::exchange(job->waiting, nullptr);
  std::string text = job->output.take();
  if (!text.empty() && !text.ends_with('\n')) text += '\n';
  const auto seconds = [&](Clock::time_point end) {
    return std::chrono::duration<double>(end - job->started).count();
  };
  if (job->exit) {
    job->read_to_end = true;
    text += fmt::format("[{} after {:.1f} s{}]", to_string(*job->exit), seconds(job->ended),
                        job->timed_out ? ", its timeout" : "");
  } else {
    text += fmt::format(
        "[still running after {:.0f} s as job {}; exec_poll reads on, exec_input writes to it, "
        "exec_signal ends it]",
        seconds(Clock::now()), job->id);
  }
  reply(ToolResult{std::move(text)});
}

std::shared_ptr<Jobs::Job> Jobs::find(std::uint64_t id, const Reply& reply) {
  const auto found = jobs_.find(id);
  if (found != jobs_.end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [other, job] : jobs_) known.push_back(std::to_string(other));
  reply({fmt::format("there is no job {}{}", id,
                     known.empty() ? "" : "; there is " + join(known, ", ")),
         true});
  return nullptr;
}

void Jobs::poll(std::uint64_t id, std::chrono::seconds wait, Reply reply) {
  if (const auto job = find(id, reply)) wait_for(job, wait, std::move(reply));
}

void Jobs::input(std::uint64_t id, const std::string& text, bool close, std::chrono::seconds wait,
                 Reply reply) {
  constexpr std::size_t kMaxQueued = 1U << 20;
  const auto job = find(id, reply);
  if (!job) return;
  if (job->exit) {
    reply({fmt::format("job {} has ended: it {}", id, to_string(*job->exit)), true});
    return;
  }
  if (job->child->queued_bytes() + text.size() > kMaxQueued) {
    reply({fmt::format("job {} does not read its input; {} bytes wait already", id,
                       job->child->queued_bytes()),
           true});
    return;
  }
  if (!text.empty()) job->child->write(text);
  if (close) job->child->close_stdin();
  wait_for(job, wait, std::move(reply));
}

void Jobs::signal(std::uint64_t id, const std::string& name, Reply reply) {
  const auto job = find(id, reply);
  if (!job) return;
  if (job->exit) {
    reply({fmt::format("job {} has ended already: it {}", id, to_string(*job->exit))});
    return;
  }
  std::string_view plain = name;
  if (plain.starts_with("SIG")) plain.remove_prefix(3);
  const auto signal = std::find_if(kSignals.begin(), kSignals.end(),
                                   [&](const SignalName& entry) { return entry.name == plain; });
  if (signal == kSignals.end()) {
    reply({fmt::format("unknown signal {}; use INT, TERM, KILL, HUP, QUIT, USR1, USR2 or WINCH",
                       escape_line(name)),
           true});
    return;
  }
  job->child->signal(signal->number);
  // Most commands end at once; the answer should then say so.
  wait_for(job, std::chrono::seconds(2), std::move(reply));
}

void Jobs::cancel(std::uint64_t id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end() || found->second->exit) return;
  found->second->child->signal(SIGTERM);
  found->second->child->stop(kStop);
}

void Jobs::stop_all() {
  for (auto& [id, job] : jobs_) {
    if (!job->exit) cancel(id);
  }
}

std::size_t Jobs::running() const {
  return static_cast<std::size_t>(std::count_if(
      jobs_.begin(), jobs_.end(), [](const auto& entry) { return !entry.second->exit; }));
}

// Those whose end was seen go first; one that nobody asked about yet goes last.
void Jobs::forget_oldest_finished() {
  while (jobs_.size() - running() > kMaxFinished) {
    auto victim = std::find_if(jobs_.begin(), jobs_.end(),
                               [](const auto& entry) { return entry.second->read_to_end; });
    if (victim == jobs_.end()) {
      victim = std::find_if(jobs_.begin(), jobs_.end(),
                            [](const auto& entry) { return entry.second->exit.has_value(); });
    }
    jobs_.erase(victim);
  }
}

}  // namespace agent_vm::workspace

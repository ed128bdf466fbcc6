#include "support/vm.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>

#include "base/text.h"
#include "confine/user_namespace.h"
#include "os/files.h"
#include "support/image.h"
#include "support/options.h"
#include "support/repository.h"
#include "support/sweep.h"

namespace agent_vm::test {
namespace fs = std::filesystem;
using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

std::vector<TestVm*>& registry() {
  static std::vector<TestVm*> vms;
  return vms;
}

// Two ports are never the same although both are free now.
std::uint16_t port_other_than(std::uint16_t taken) {
  std::uint16_t port = free_port();
  while (port == taken) port = free_port();
  return port;
}

}  // namespace

const std::vector<TestVm*>& live_vms() {
  return registry();
}

std::string missing_for_vms() {
  if (const auto map = system_id_map(); !map)
    return map.error().message() + "; run: " + map.error().hint();
  if (::access("/dev/net/tun", R_OK | W_OK) != 0)
    return "/dev/net/tun cannot be opened: " + errno_text(errno);
  for (const auto* program : {"qemu-system-x86_64", "ssh", "git", "qemu-img"}) {
    if (!run_program({"sh", "-c", fmt::format("command -v {}", program)}).ok())
      return fmt::format("{} is not installed", program);
  }
  return "";
}

TestVm::TestVm(const std::string& label, VmOptions vm_options) : options_(std::move(vm_options)) {
  static int number = 0;
  root_ = fmt::format("{}/{}-{}", options().root, ++number, label);
  fs::create_directories(root_);
  make_repository(repository());
  if (!options_.repository_settings.empty()) {
    write_file(repository() + "/agent-vm.toml", options_.repository_settings);
    git(repository(), {"add", "agent-vm.toml"});
    git(repository(), {"commit", "-q", "-m", "Settings"});
  }
  write_owner_configuration();
  port_ = free_port();
  ssh_port_ = port_other_than(port_);
  registry().push_back(this);
}

TestVm::TestVm(const TestVm& sibling, VmOptions vm_options)
    : options_(std::move(vm_options)),
      root_(sibling.root_),
      port_(free_port()),
      ssh_port_(port_other_than(port_)),
      sibling_(true) {
  registry().push_back(this);
}

TestVm::~TestVm() {
  close_ssh();
  std::erase(registry(), this);
  if (!created_) return;
  if (supervisor()) {
    const Ran stopped = agent({"stop", "--force", name()});
    EXPECT_TRUE(stopped.ok()) << stopped.describe();
  }
  if (is_kept(root_)) return;
  const Ran destroyed = agent({"destroy", "--purge", "--yes", name()});
  EXPECT_TRUE(destroyed.ok()) << destroyed.describe();
  EXPECT_FALSE(fs::exists(directory()));
}

void TestVm::write_owner_configuration() const {
  const std::string folder = root_ + "/config/agent-vm";
  fs::create_directories(folder);
  write_file(folder + "/config.toml", "[vm]\n");
  ::chmod((folder + "/config.toml").c_str(), 0600);
}

std::string TestVm::file(const std::string& path) const {
  return read_text(directory() + "/" + path);
}

std::string TestVm::token() const {
  return std::string(trim(file("mcp_token")));
}

std::vector<std::string> TestVm::agent_argv(const std::vector<std::string>& arguments,
                                            const std::vector<std::string>& global) const {
  std::vector<std::string> argv{options().agent_vm, "--state-dir", state()};
  for (const auto& argument : passed_on()) argv.push_back(argument);
  argv.insert(argv.end(), global.begin(), global.end());
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return argv;
}

RunOptions TestVm::agent_options(const RunOptions& run_options) const {
  RunOptions all = run_options;
  if (all.directory.empty()) all.directory = repository();
  all.environment.push_back("XDG_CONFIG_HOME=" + root_ + "/config");
  all.environment.push_back("XDG_CACHE_HOME=" + image_cache().path);
  all.environment.push_back("LC_ALL=C.UTF-8");
  return all;
}

Ran TestVm::agent(const std::vector<std::string>& arguments, const RunOptions& run_options) const {
  return run_program(agent_argv(arguments), agent_options(run_options));
}

testing::AssertionResult TestVm::create() {
  std::vector<std::string> arguments{
      "create",   repository(),          "--branch",   options_.branch,
      "--port",   std::to_string(port_), "--ssh-port", std::to_string(ssh_port_),
      "--memory", options_.memory};
  if (!options_.network.empty()) arguments.insert(arguments.end(), {"--network", options_.network});
  if (!options_.repository_settings.empty()) arguments.emplace_back("--trust");
  arguments.insert(arguments.end(), options_.create_arguments.begin(),
                   options_.create_arguments.end());
  const Ran created = agent(arguments);
  created_ = created.ok();
  if (!created.ok()) return testing::AssertionFailure() << "create: " << created.describe();
  return testing::AssertionSuccess();
}

testing::AssertionResult TestVm::start() {
  close_ssh();
  const Ran started = agent({"start", name()});
  if (!started.ok()) return testing::AssertionFailure() << "start: " << started.describe();
  return testing::AssertionSuccess();
}

testing::AssertionResult TestVm::create_and_start() {
  auto created = create();
  return created ? start() : created;
}

testing::AssertionResult TestVm::ensure_running() {
  if (!created_) return create_and_start();
  const auto runs = supervisor();
  if (runs && is_running(*runs)) return testing::AssertionSuccess();
  return start();
}

Ran TestVm::stop(const std::vector<std::string>& more) {
  close_ssh();
  std::vector<std::string> arguments{"stop", name()};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return agent(arguments);
}

json TestVm::status() const {
  const Ran ran = agent({"status", name(), "--json"});
  json value = json::parse(ran.out, nullptr, false);
  EXPECT_TRUE(value.is_object()) << ran.describe();
  return value;
}

std::optional<ProcessIdentity> TestVm::supervisor() const {
  const json run = json::parse(file("run.json"), nullptr, false);
  if (!run.is_object()) return std::nullopt;
  const json& recorded = run["supervisor"];
  if (!recorded.is_object()) return std::nullopt;
  return ProcessIdentity{recorded.value("pid", 0), recorded.value("start_time", std::uint64_t{0}),
                         recorded.value("boot_id", "")};
}

pid_t TestVm::child(const std::string& child_name) const {
  const auto parent = supervisor();
  if (!parent) return 0;
  const std::string program = child_name == "qemu" ? "qemu-system-" : child_name;
  for (const auto& process : descendants(parent->pid)) {
    const std::string status = fmt::format("/proc/{}/status", process.pid);
    const auto words = split(command_line(process.pid), ' ');
    if (status_field(status, "PPid") == std::to_string(parent->pid) &&
        words[0].find(program) != std::string::npos)
      return process.pid;
  }
  return 0;
}

Footprint TestVm::footprint() const {
  const auto parent = supervisor();
  EXPECT_TRUE(parent) << "no supervisor has recorded that it runs";
  return parent ? Footprint::of(parent->pid) : Footprint();
}

std::string TestVm::report() const {
  std::string text = fmt::format("--- VM {} in {}\n", name(), directory());
  const Ran now = agent({"status", name(), "--json"}, {.patience = seconds(30)});
  text += "status --json: " + now.describe();
  for (const auto* log :
       {"logs/console.log", "logs/qemu.log", "logs/virtiofsd.log", "logs/supervisor.log"}) {
    auto lines = split_lines(file(log));
    if (lines.size() > 25) lines.erase(lines.begin(), lines.end() - 25);
    text += fmt::format("--- {}\n", log);
    for (const auto& line : lines) text += "  | " + escape_line(line) + "\n";
  }
  return text;
}

std::vector<std::string> TestVm::leftovers(const Footprint& before) const {
  auto found = before.leftovers();
  for (const auto& file : socket_files(directory())) found.push_back("socket file " + file);
  for (const auto& line : unix_sockets_with(directory() + "/")) found.push_back("socket " + line);
  for (const auto& line : mounts_with(directory() + "/")) found.push_back("mount " + line);
  for (const std::uint16_t port : {port_, ssh_port_}) {
    for (const auto& line : tcp_listeners(port)) found.push_back("listener " + line);
  }
  for (const auto& line : processes_with("--state-dir " + state() + " --vm " + name() + " "))
    found.push_back(line);
  if (fs::exists(directory() + "/run.json")) found.emplace_back("run.json");
  return found;
}

}  // namespace agent_vm::test

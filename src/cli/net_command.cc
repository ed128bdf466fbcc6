// agent-vm net: what a VM may reach, and what it has asked for.
#include "cli/net.h"

#include <algorithm>

#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/log_follower.h"
#include "cli/verbs.h"
#include "config/git_rule.h"
#include "control/client.h"
#include "launch/egress.h"
#include "launch/install_layout.h"
#include "os/files.h"
#include "os/run.h"
#include "state/audit_log.h"

namespace agent_vm {
namespace {

using namespace std::chrono_literals;
using json = nlohmann::ordered_json;

constexpr auto kPatience = 30s;

struct Options {
  std::string vm;
  std::vector<std::string> rules;
  std::string mode;
  std::string url;
  std::string method = "GET";
  std::string lines = "200";
  bool verify = false;
};

// Changes the configuration, the policy that a running proxy reads, and what runs. Connections that
// are allowed as before are not disturbed.
Result<NetworkPolicy> change(Context& context, const std::string& name,
                             const std::function<Status(VmConfig&)>& edit) {
  const Deadline deadline = TRY(context.deadline(kPatience));
  const VmDirectory vm = TRY(context.vm(name));
  const DirectoryLock lock = TRY(vm.lock(deadline));
  VmConfig config = TRY(vm.read_config());
  const NetworkMode before = config.network.mode;
  TRY(edit(config));
  TRY(validate(config.network));
  if (config.network.mode != NetworkMode::kOff && before == NetworkMode::kOff) {
    TRY(check_egress());
  }
  TRY(vm.write_config(config));
  TRY(write_network_records(vm, config, deadline));
  if (const auto run = TRY(vm.read_run()); run && !run->is_stale()) {
    auto supervisor = TRY(ControlClient::connect(vm.fd()));
    TRY(supervisor.call({{"request", "network"}}, deadline));
  }
  return config.network;
}

json policy_to_json(const NetworkPolicy& policy) {
  return {{"mode", to_string(policy.mode)},
          {"allow", policy.allow},
          {"deny", policy.deny},
          {"owner_allow", policy.owner_allow},
          {"owner_deny", policy.owner_deny}};
}

void add_new(std::vector<std::string>& list, const std::string& entry) {
  if (std::ranges::find(list, entry) == list.end()) list.push_back(entry);
}

Result<int> add_rules(Context& context, const Options& options, bool allows) {
  for (const auto& rule : options.rules) TRY(valid_network_entry(rule));
  const auto policy = TRY(change(context, options.vm, [&](VmConfig& config) -> Status {
    NetworkPolicy& network = config.network;
    for (const auto& rule : options.rules) {
      // The newest word counts: the opposite one of the owner's goes.
      std::erase(allows ? network.owner_deny : network.owner_allow, rule);
      add_new(allows ? network.owner_allow : network.owner_deny, rule);
    }
    return {};
  }));
  context.out.json(policy_to_json(policy));
  for (const auto& rule : options.rules) {
    context.out.print("{} {}", allows ? "Allowed:" : "Refused:", escape_line(rule));
  }
  if (policy.mode == NetworkMode::kOff) {
    context.out.print("The network is off: nothing is reached before agent-vm net mode allowlist");
  }
  return kExitOk;
}

Result<int> set_mode(Context& context, const std::string& vm, const std::string& text) {
  const NetworkMode mode = TRY(parse_network_mode(text));
  const auto policy = TRY(change(context, vm, [&](VmConfig& config) -> Status {
    config.network.mode = mode;
    add_new(config.explicit_settings, "network_mode");
    return {};
  }));
  context.out.json(policy_to_json(policy));
  context.out.print("Network: {}", to_string(mode));
  return kExitOk;
}

Result<int> show(Context& context, const Options& options) {
  const VmDirectory vm = TRY(context.vm(options.vm));
  const VmConfig config = TRY(vm.read_config());
  json document = policy_to_json(config.network);
  const auto policy = vm.read_small_file(fmt::format("{}/{}", kPolicyFolder, kPolicyFile));
  const json in_force = policy ? json::parse(*policy, nullptr, false) : json();
  document["in_force"] = in_force.is_object() ? in_force["rules"] : json();
  context.out.json(document);
  context.out.print("Network: {}", to_string(config.network.mode));
  if (!in_force.is_object() || !in_force["rules"].is_array()) {
    context.out.print("Its rules are worked out when it is started.");
    return kExitOk;
  }
  json rules = in_force["rules"];
  for (const auto& rule : in_force.value("git", json::array())) rules.push_back(rule);
  for (const auto& rule : rules) {
    context.out.print("  {:<6} {}   ({})", rule.value("effect", ""),
                      escape_line(rule.value("text", "")), escape_line(rule.value("from", "")));
  }
  return kExitOk;
}

// Asks who decides about a request of the VM: the proxy's own code, or that of git over SSH.
Result<json> ask_policy(Context& context, const VmDirectory& vm, const Options& options) {
  if (options.url.starts_with("ssh://")) {
    const auto request = TRY(parse_git_url(options.url, lower(options.method) == "push"));
    const GitDecision decision = decide(TRY(vm.read_config()).network, request);
    return json{{"allowed", decision.allowed}, {"rule", decision.rule}, {"why", decision.why}};
  }
  return web_decision(vm, options.method, options.url, TRY(context.deadline(kPatience)));
}

Result<int> test(Context& context, const Options& options) {
  const json decision = TRY(ask_policy(context, TRY(context.vm(options.vm)), options));
  context.out.json(decision);
  const bool allowed = decision.value("allowed", false);
  context.out.print("{}: {} {}", allowed ? "allowed" : "refused", options.method,
                    escape_line(options.url));
  context.out.print("  rule: {}", escape_line(decision.value("rule", "")));
  context.out.print("  {}", escape_line(decision.value("why", "")));
  return allowed ? kExitOk : kExitFailed;
}

Result<int> log(Context& context, const Options& options, bool follow) {
  const VmDirectory vm = TRY(context.vm(options.vm));
  if (options.verify) {
    const AuditReport report = TRY(verify_audit_log(vm.fd()));
    context.out.json({{"lines", report.lines}, {"problem", report.problem}});
    if (!report.problem.empty()) return fail("the audit log was changed: {}", report.problem);
    context.out.print("{} lines, each follows from the one before it", report.lines);
    return kExitOk;
  }
  const auto lines = parse_unsigned(options.lines);
  if (!lines) return fail(ErrorKind::kInvalidInput, "--lines: not a number");
  const LogFile file{fmt::format("{}/{}", kAuditFolder, kAuditFile),
                     fmt::format("{}/{}.1", kAuditFolder, kAuditFile)};
  const Deadline deadline = TRY(context.deadline());
  if (!follow && !exists_at(vm.fd(), file.current)) return kExitOk;  // nothing was asked for yet
  LineFormat format = [&context](std::string_view line) { return net_line(context.out, line); };
  if (context.out.json_mode) format = {};
  TRY(print_log(vm, file, *lines, follow, deadline, format));
  return kExitOk;
}

// The smallest policy that allows what was refused, and does not allow what it need not.
Result<int> learn(Context& context, const Options& options) {
  const VmDirectory vm = TRY(context.vm(options.vm));
  const auto rules = TRY(rules_for_refused(vm));
  context.out.json({{"allow", rules}});
  if (rules.empty()) {
    context.out.print("Nothing was refused that a rule could allow.");
    return kExitOk;
  }
  context.out.print("What was asked for and refused. Allow what you trust:");
  for (const auto& rule : rules) {
    context.out.print("  agent-vm net allow --vm {} {}", vm.name(), shell_quote(rule));
  }
  return kExitOk;
}

using Action = std::function<Result<int>(Context&, const Options&)>;

CLI::App* add_action(CLI::App& net, Context& context, const std::string& name,
                     const std::string& description, std::shared_ptr<Options> options,
                     Action action) {
  CLI::App* verb = add_verb(net, name, description, "");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options, action] { return action(context, *options); });
  return verb;
}

CLI::Option* add_vm_option(CLI::App& verb, std::string& vm) {
  return verb.add_option("--vm", vm, "name or branch; left out: the current branch's")
      ->type_name("VM");
}

// Where no other word is, the VM may be one, too, as with every other verb.
void add_vm_word(CLI::App& verb, std::string& vm) {
  add_vm_argument(verb, vm);
  add_vm_option(verb, vm)->excludes(verb.get_option("VM"));
}

}  // namespace

Result<json> web_decision(const VmDirectory& vm, const std::string& method, const std::string& url,
                          const Deadline& deadline) {
  const std::string rest = url.substr(std::min(url.find("://"), url.size()));
  const std::string target = rest.empty() ? url : rest.substr(3);
  const auto slash = target.find('/');
  const std::string path = slash == std::string::npos ? "/" : target.substr(slash);
  const EgressInputs inputs = egress_inputs(TRY(InstallLayout::find()), vm);
  const auto asked =
      TRY(run_checked({.argv = {inputs.python, "-I", "-B", inputs.proxy_files + "/policy.py",
                                fmt::format("{}/{}", inputs.policy_folder, kPolicyFile), method,
                                target.substr(0, slash), path},
                       .deadline = deadline}));
  json decision = json::parse(asked.out, nullptr, false);
  if (!decision.is_object()) return fail("the policy gave no answer");
  return decision;
}

void add_net(CLI::App& app, Context& context) {
  CLI::App* net = add_verb(app, "net", "what a VM may reach on the web, and what it has asked for",
                           "  agent-vm net allow api.example.org\n"
                           "  agent-vm net allow 'GET *.example.org/public/*'\n"
                           "  agent-vm net deny 'POST git.example.org/*/git-receive-pack'\n"
                           "  agent-vm net allow 'fetch ssh://git@git.example.org/team/app'\n"
                           "  agent-vm net off my-branch\n"
                           "  agent-vm net test https://api.example.org/v1\n"
                           "  agent-vm net tail");
  net->require_subcommand(1);
  auto options = std::make_shared<Options>();
  for (const bool allows : {true, false}) {
    CLI::App* verb = add_action(
        *net, context, allows ? "allow" : "deny",
        allows ? "allow what a rule names, at once"
               : "refuse what a rule names; stronger than any allow",
        options, [allows](Context& c, const Options& o) { return add_rules(c, o, allows); });
    verb->add_option("RULE", options->rules, "[METHODS] HOST[/PATH] [in RANGE], or @preset")
        ->required();
    add_vm_option(*verb, options->vm);
  }
  CLI::App* mode =
      add_action(*net, context, "mode", "off, allowlist or monitor", options,
                 [](Context& c, const Options& o) { return set_mode(c, o.vm, o.mode); });
  mode->add_option("MODE", options->mode, "off|allowlist|monitor")->required();
  add_vm_option(*mode, options->vm);
  add_vm_word(*add_action(*net, context, "off", "cut it off, at once", options,
                          [](Context& c, const Options& o) { return set_mode(c, o.vm, "off"); }),
              options->vm);
  add_vm_word(*add_action(*net, context, "show", "mode and rules", options, show), options->vm);
  CLI::App* test_verb =
      add_action(*net, context, "test", "which rule decides about a URL", options, test);
  test_verb
      ->add_option("URL", options->url,
                   "such as https://api.example.org/v1, ssh://git@git.example.org/app")
      ->required();
  test_verb->add_option("--method", options->method, "left out: GET; of git over SSH: fetch, push")
      ->type_name("METHOD");
  add_vm_option(*test_verb, options->vm);
  CLI::App* log_verb =
      add_action(*net, context, "log", "every request, allowed or refused", options,
                 [](Context& c, const Options& o) { return log(c, o, false); });
  add_vm_word(*log_verb, options->vm);
  log_verb->add_option("--lines", options->lines, "how many, from the end")->type_name("N");
  log_verb->add_flag("--verify", options->verify, "check that no line was changed or removed");
  add_vm_word(*add_action(*net, context, "tail", "requests as they are made", options,
                          [](Context& c, const Options& o) { return log(c, o, true); }),
              options->vm);
  add_vm_word(*add_action(*net, context, "learn", "rules for what was refused", options, learn),
              options->vm);
}

}  // namespace agent_vm

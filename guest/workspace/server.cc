#include "workspace/server.h"

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>

#include "base/log.h"
#include "base/text.h"
#include "mcp/message.h"
#include "workspace/files.h"
#include "workspace/git.h"
#include "workspace/patch.h"
#include "workspace/search.h"

namespace agent_vm::workspace {
namespace {

namespace asio = boost::asio;

constexpr std::array<const char*, 4> kVersions = {"2025-11-25", "2025-06-18", "2025-03-26",
                                                  "2024-11-05"};
constexpr int kWorkers = 2;

std::string string_of(const Json& arguments, const char* name, std::string fallback = "") {
  return arguments.contains(name) ? arguments.at(name).get<std::string>() : std::move(fallback);
}
bool flag_of(const Json& arguments, const char* name) {
  return arguments.contains(name) && arguments.at(name).get<bool>();
}
std::uint64_t number_of(const Json& arguments, const char* name, std::uint64_t fallback) {
  return arguments.contains(name) ? arguments.at(name).get<std::uint64_t>() : fallback;
}
std::chrono::seconds seconds_of(const Json& arguments, const char* name, int fallback) {
  return std::chrono::seconds(number_of(arguments, name, static_cast<std::uint64_t>(fallback)));
}
std::vector<std::string> strings_of(const Json& arguments, const char* name) {
  return arguments.contains(name) ? arguments.at(name).get<std::vector<std::string>>()
                                  : std::vector<std::string>();
}

Result<ExecOptions> exec_options(const Json& arguments) {
  ExecOptions options;
  options.command = string_of(arguments, "command");
  options.argv = strings_of(arguments, "argv");
  if (options.command.empty() == options.argv.empty()) {
    return fail(ErrorKind::kInvalidInput, "exec needs either command or argv");
  }
  options.cwd = string_of(arguments, "cwd", ".");
  options.stdin_text = string_of(arguments, "stdin");
  options.wait = seconds_of(arguments, "wait", 50);
  options.timeout = seconds_of(arguments, "timeout", 0);
  if (arguments.contains("env")) {
    for (const auto& [key, value] : arguments.at("env").items()) {
      const std::string text = value.get<std::string>();
      if (key.empty() || key.find_first_of(std::string_view("=\0", 2)) != std::string::npos ||
          text.find('\0') != std::string::npos) {
        return fail(ErrorKind::kInvalidInput, "\"{}\" cannot be a variable", escape_line(key));
      }
      options.environment[key] = text;
    }
  }
  const auto has_nul = [](const std::string& word) { return word.find('\0') != std::string::npos; };
  if (has_nul(options.command) || std::any_of(options.argv.begin(), options.argv.end(), has_nul)) {
    return fail(ErrorKind::kInvalidInput, "a command cannot contain a NUL byte");
  }
  return options;
}

// The blocking tools, as a function to run on a worker.
std::function<Result<ToolResult>()> blocking_tool(const Root& root, const std::string& tool,
                                                  const Json& arguments) {
  const std::string path = string_of(arguments, "path", ".");
  if (tool == "read") {
    return [&root, path, arguments] {
      return read_tool(root, path, number_of(arguments, "offset", 1),
                       number_of(arguments, "limit", 2000));
    };
  }
  if (tool == "write") {
    return [&root, path, arguments] {
      return write_tool(root, path, string_of(arguments, "content"));
    };
  }
  if (tool == "edit") {
    return [&root, path, arguments] {
      return edit_tool(root, path, string_of(arguments, "old_text"),
                       string_of(arguments, "new_text"), flag_of(arguments, "replace_all"));
    };
  }
  if (tool == "apply_patch") {
    return [&root, arguments] { return apply_patch_tool(root, string_of(arguments, "patch")); };
  }
  if (tool == "glob") {
    return [&root, path, arguments] {
      return glob_tool(root, string_of(arguments, "pattern"), path,
                       number_of(arguments, "limit", 200));
    };
  }
  if (tool == "grep") {
    GrepOptions options;
    options.pattern = string_of(arguments, "pattern");
    options.path = path;
    options.glob = string_of(arguments, "glob");
    options.mode = string_of(arguments, "mode", "lines");
    options.context = number_of(arguments, "context", 0);
    options.limit = number_of(arguments, "limit", 500);
    options.ignore_case = flag_of(arguments, "ignore_case");
    options.literal = flag_of(arguments, "literal");
    options.multiline = flag_of(arguments, "multiline");
    options.ignored_files = flag_of(arguments, "ignored_files");
    return [&root, options] { return grep_tool(root, options); };
  }
  if (tool == "git_diff") {
    GitDiffOptions options;
    options.repository = path;
    options.range = string_of(arguments, "range");
    options.staged = flag_of(arguments, "staged");
    options.stat = flag_of(arguments, "stat");
    options.paths = strings_of(arguments, "paths");
    return [&root, options] { return git_diff_tool(root, options); };
  }
  GitCommitOptions options;  // git_commit, the only one left
  options.repository = path;
  options.message = string_of(arguments, "message");
  options.paths = strings_of(arguments, "paths");
  return [&root, options] { return git_commit_tool(root, options); };
}

}  // namespace

Service::Service(asio::any_io_executor executor, Root root)
    : executor_(executor),
      root_(std::make_unique<Root>(std::move(root))),
      jobs_(executor, *root_),
      workers_(kWorkers) {}

Service::~Service() {
  *alive_ = false;
  workers_.stop();
  workers_.join();
}

void Service::stop() {
  jobs_.stop_all();
  workers_.stop();
}

void Service::run_on_worker(std::function<Result<ToolResult>()> tool, Reply reply) {
  asio::post(workers_, [tool = std::move(tool), reply = std::move(reply), executor = executor_,
                        alive = alive_] {
    ToolResult result;
    try {
      auto outcome = tool();
      result = outcome ? std::move(*outcome) : ToolResult{outcome.error().message(), true};
    } catch (const std::exception& exception) {  // a library's: bad_alloc, filesystem_error
      result = {fmt::format("the tool failed: {}", exception.what()), true};
    }
    asio::post(executor, [reply, alive, result = std::move(result)] {
      if (*alive) reply(result);
    });
  });
}

std::uint64_t Service::call(const std::string& tool, const Json& arguments, Reply reply) {
  if (tool == "exec") {
    const auto options = exec_options(arguments);
    if (options) return jobs_.exec(*options, std::move(reply));
    reply({options.error().message(), true});
  } else if (tool == "exec_poll") {
    jobs_.poll(number_of(arguments, "job", 0), seconds_of(arguments, "wait", 10), std::move(reply));
  } else if (tool == "exec_input") {
    jobs_.input(number_of(arguments, "job", 0), string_of(arguments, "text"),
                flag_of(arguments, "close"), seconds_of(arguments, "wait", 2), std::move(reply));
  } else if (tool == "exec_signal") {
    jobs_.signal(number_of(arguments, "job", 0), string_of(arguments, "signal", "TERM"),
                 std::move(reply));
  } else {
    run_on_worker(blocking_tool(*root_, tool, arguments), std::move(reply));
  }
  return 0;
}

void Conversation::receive(std::string_view line) {
  const Json message = Json::parse(line, nullptr, false);
  if (!message.is_object()) {
    // JSON that this parser cannot hold, such as the number 1e400: still answered.
    const auto envelope = mcp::parse_message(line);
    if (envelope && envelope->kind == mcp::MessageKind::kRequest && send_) {
      send_(mcp::error_message(envelope->id, mcp::kInvalidParams,
                               "the request holds a number that is out of range"));
    }
    return;
  }
  const Json id = message.value("id", Json());
  const std::string method = message.value("method", "");
  const Json params = message.value("params", Json::object());
  if (id.is_null()) {
    if (method == "notifications/cancelled" && params.is_object()) {
      const auto call = calls_.find(params.value("requestId", Json()).dump());
      if (call == calls_.end()) return;
      if (call->second != 0) service_->jobs().cancel(call->second);
      calls_.erase(call);
    }
    return;
  }
  if (!method.empty()) handle_request(id, method, params);
}

void Conversation::handle_request(const Json& id, const std::string& method, const Json& params) {
  const auto answer = [&](Json result) {
    send({{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(result)}});
  };
  if (method == "initialize") {
    const std::string asked = params.is_object() && params.contains("protocolVersion") &&
                                      params.at("protocolVersion").is_string()
                                  ? params.at("protocolVersion").get<std::string>()
                                  : "";
    const auto known = std::find(kVersions.begin(), kVersions.end(), asked);
    answer(
        {{"protocolVersion", known == kVersions.end() ? kVersions.front() : *known},
         {"capabilities", {{"tools", Json::object()}}},
         {"serverInfo",
          {{"name", "workspace"}, {"title", "Workspace"}, {"version", AGENT_VM_VERSION}}},
         {"instructions", fmt::format("Tools for the repository in {}. Paths are relative to it.",
                                      service_->root().path())}});
  } else if (method == "ping") {
    answer(Json::object());
  } else if (method == "tools/list") {
    answer({{"tools", tool_definitions()}});
  } else if (method == "tools/call") {
    call_tool(id, params);
  } else {
    send_error(id, mcp::kMethodNotFound, "there is no method " + escape_line(method));
  }
}

void Conversation::call_tool(const Json& id, const Json& params) {
  if (!params.is_object() || !params.contains("name") || !params.at("name").is_string()) {
    send_error(id, mcp::kInvalidParams, "tools/call needs the name of a tool");
    return;
  }
  const std::string name = params.at("name");
  const Json arguments = params.value("arguments", Json::object());
  const std::string key = id.dump();
  calls_[key] = 0;
  const Reply reply = [weak = weak_from_this(), id, key](const ToolResult& result) {
    const auto alive = weak.lock();
    if (!alive || alive->calls_.erase(key) == 0) return;  // cancelled: nobody waits
    Json body = {{"content", Json::array({{{"type", "text"}, {"text", result.text}}})}};
    if (result.is_error) body["isError"] = true;
    alive->send({{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(body)}});
  };
  if (const Status checked = check_arguments(name, arguments); !checked) {
    if (checked.error().kind() == ErrorKind::kNotFound) {
      calls_.erase(key);
      send_error(id, mcp::kInvalidParams, checked.error().message());
    } else {
      reply({checked.error().message(), true});  // a model can correct that
    }
    return;
  }
  const std::uint64_t job = service_->call(name, arguments, reply);
  if (const auto call = calls_.find(key); call != calls_.end()) call->second = job;
}

void Conversation::send(const Json& message) {
  // Command output and file content need not be UTF-8; JSON must be.
  if (send_) send_(message.dump(-1, ' ', false, Json::error_handler_t::replace));
}

void Conversation::send_error(const Json& id, int code, const std::string& message) {
  send({{"jsonrpc", "2.0"}, {"id", id}, {"error", {{"code", code}, {"message", message}}}});
}

}  // namespace agent_vm::workspace

// What MCP clients read: mcp config. Each is told to run `agent-vm mcp VM`, so that no token is in
// any file of theirs, and the endpoint may move.
#include <sys/stat.h>

#include <filesystem>
#include <map>

#include "base/text.h"
#include "cli/exit_code.h"
#include "cli/mcp_verbs.h"
#include "config/names.h"
#include "os/files.h"

namespace agent_vm {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr std::size_t kMaxFile = 4U << 20U;

struct Options {
  std::string vm;
  std::string server;
  std::string client;
  bool write = false;
};

struct Client {
  const char* file;    // ~ is the user's home; otherwise below the current folder
  const char* member;  // of the object with all servers
  bool type;           // wants "type": "stdio"
  bool toml = false;
};
const std::map<std::string, Client> kClients = {
    {"claude-code", {".mcp.json", "mcpServers", true}},
    {"claude-desktop", {"~/.config/Claude/claude_desktop_config.json", "mcpServers", false}},
    {"codex", {"~/.codex/config.toml", "mcp_servers", false, true}},
    {"cursor", {".cursor/mcp.json", "mcpServers", false}},
    {"vscode", {".vscode/mcp.json", "servers", true}},
};

std::string toml_quote(const std::string& text) {
  return nlohmann::json(text).dump();  // a TOML basic string has JSON's escapes
}

struct Entry {
  std::string name;
  std::vector<std::string> argv;
};

// The state directory is named when it is not the default one: the client is started from anywhere.
Result<Entry> entry_for(const Context& context, const VmDirectory& vm, const Options& options) {
  Entry entry;
  entry.name = "agent-vm-" + vm.name() + (options.server.empty() ? "" : "-" + options.server);
  entry.argv = {"agent-vm"};
  if (!context.state_dir.empty()) {
    entry.argv.push_back("--state-dir");
    entry.argv.push_back(TRY(context.state_path()));
  }
  entry.argv.insert(entry.argv.end(), {"mcp", vm.name()});
  if (!options.server.empty()) entry.argv.push_back(options.server);
  return entry;
}

OrderedJson json_entry(const Client& client, const Entry& entry) {
  OrderedJson json;
  if (client.type) json["type"] = "stdio";
  json["command"] = entry.argv.front();
  json["args"] = std::vector<std::string>(entry.argv.begin() + 1, entry.argv.end());
  return json;
}

std::string toml_entry(const Client& client, const Entry& entry) {
  std::vector<std::string> arguments;
  for (std::size_t i = 1; i < entry.argv.size(); ++i)
    arguments.push_back(toml_quote(entry.argv[i]));
  return fmt::format("[{}.{}]\ncommand = {}\nargs = [{}]\n", client.member, toml_quote(entry.name),
                     toml_quote(entry.argv.front()), join(arguments, ", "));
}

Result<std::string> path_of(const Context& context, const Client& client) {
  const std::string file = client.file;
  if (!file.starts_with("~/")) return context.working_directory + "/" + file;
  const char* home = std::getenv("HOME");  // NOLINT(concurrency-mt-unsafe)
  if (home == nullptr || *home != '/') return fail("HOME names no folder");
  return std::string(home) + file.substr(1);
}

Result<std::string> merged(const Client& client, const Entry& entry, const std::string& path,
                           const std::string& before) {
  if (client.toml) {
    const std::string heading =
        toml_entry(client, entry).substr(0, toml_entry(client, entry).find('\n'));
    if (before.find(heading) != std::string::npos) {
      return tl::unexpected(
          Error(ErrorKind::kInvalidInput, fmt::format("{} has an entry {} already", path, heading))
              .with_hint("change or remove it there"));
    }
    return before +
           (before.empty()           ? ""
            : before.ends_with("\n") ? "\n"
                                     : "\n\n") +
           toml_entry(client, entry);
  }
  OrderedJson whole =
      before.empty() ? OrderedJson::object() : OrderedJson::parse(before, nullptr, false);
  if (!whole.is_object() || (whole.contains(client.member) && !whole[client.member].is_object())) {
    return tl::unexpected(
        Error(ErrorKind::kInvalidInput,
              fmt::format("{} is not plain JSON of the expected form; nothing was changed", path))
            .with_hint("without --write the entry is printed, to be put in by hand"));
  }
  whole[client.member][entry.name] = json_entry(client, entry);
  return whole.dump(2) + "\n";
}

Status write_merged(const Client& client, const Entry& entry, const std::string& path) {
  const std::string folder = path.substr(0, path.rfind('/'));
  const std::string name = path.substr(path.rfind('/') + 1);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return fail("cannot make {}: {}", folder, error.message());
  const Fd directory = TRY(open_directory(folder));
  std::string before;
  mode_t mode = 0644;
  if (exists_at(directory.get(), name)) {
    before = TRY(read_file_at(directory.get(), name, kMaxFile));
    struct stat info {};
    if (::fstatat(directory.get(), name.c_str(), &info, 0) == 0) mode = info.st_mode & 0777U;
  }
  const std::string after = TRY(merged(client, entry, path, before));
  return write_file_atomic(directory.get(), name, after, mode);
}

Result<int> config(Context& context, const Options& options) {
  if (!options.server.empty()) TRY(valid_mcp_server_name(options.server));
  const VmDirectory vm = TRY(context.vm(options.vm));
  const Client& client = kClients.at(options.client);
  const Entry entry = TRY(entry_for(context, vm, options));
  if (options.write) {
    const std::string path = TRY(path_of(context, client));
    TRY(write_merged(client, entry, path));
    context.out.json({{"file", path}, {"name", entry.name}});
    context.out.print("Wrote {} to {}", entry.name, escape_line(path));
    return kExitOk;
  }
  if (client.toml) {
    context.out.json(OrderedJson{{"toml", toml_entry(client, entry)}});
    context.out.print("{}", escape_control(toml_entry(client, entry)));
    return kExitOk;
  }
  const OrderedJson whole = {{client.member, {{entry.name, json_entry(client, entry)}}}};
  context.out.json(whole);
  context.out.print("{}", escape_control(whole.dump(2)));
  return kExitOk;
}

}  // namespace

void add_mcp_config(CLI::App& mcp, Context& context) {
  CLI::App* verb = add_verb(mcp, "config", "what an MCP client has to be told so that it uses a VM",
                            "  agent-vm mcp config my-branch --client vscode\n"
                            "  agent-vm mcp config my-branch --client claude-code --write\n"
                            "The client runs agent-vm mcp; no token is in its files.");
  auto options = std::make_shared<Options>();
  add_vm_argument(*verb, options->vm);
  std::vector<std::string> names;
  for (const auto& [name, client] : kClients) names.push_back(name);
  verb->add_option("--client", options->client, "which one")
      ->required()
      ->check(CLI::IsMember(names))
      ->type_name("NAME");
  verb->add_option("--server", options->server, "left out: the default one")->type_name("NAME");
  verb->add_flag("--write", options->write, "merge it into the client's file");
  add_json_flag(*verb, context);
  on_run(*verb, context, [&context, options] { return config(context, *options); });
}

}  // namespace agent_vm

#include "languages/server.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/text.h"
#include "languages/place.h"
#include "workspace/tool_result.h"

namespace agent_vm::languages {
namespace {

constexpr std::array<const char*, 4> kVersions = {"2025-11-25", "2025-06-18", "2025-03-26",
                                                  "2024-11-05"};
constexpr int kMethodNotFound = -32601;
constexpr int kInvalidParams = -32602;
// Language servers give up on larger ones, too.
constexpr std::size_t kMaxFile = 8U << 20U;
constexpr std::size_t kMaxPlaces = 500;
constexpr std::size_t kMaxLine = 200;
constexpr int kMaxDepth = 64;

Json text_argument(const std::string& description) {
  return {{"type", "string"}, {"description", description}};
}

Json tool(const std::string& name, const std::string& title, const std::string& description,
          bool with_symbol) {
  Json properties = {{"path", text_argument("A file, relative to the workspace")}};
  Json required = Json::array({"path"});
  if (with_symbol) {
    properties["symbol"] =
        text_argument("A name as it stands in that file: area, Shape.area, ns::f");
    properties["line"] = {{"type", "integer"},
                          {"minimum", 1},
                          {"maximum", 100'000'000},
                          {"description", "Its line; the first line with that name when left out"}};
    required.push_back("symbol");
  }
  return {{"name", name},
          {"title", title},
          {"description", description},
          {"inputSchema",
           {{"type", "object"},
            {"properties", std::move(properties)},
            {"required", std::move(required)},
            {"additionalProperties", false}}},
          {"annotations", {{"title", title}, {"readOnlyHint", true}, {"openWorldHint", false}}}};
}

const Json& tools() {
  static const Json kTools = Json::array(
      {tool("definition", "Go to definition",
            "Says where the symbol that is used or declared in a file is defined, as "
            "path:line:column, by the language's own server.",
            true),
       tool("references", "Find references",
            "Lists every place in the workspace that refers to the symbol, and its declaration.",
            true),
       tool("hover", "Type and documentation",
            "Says the type or signature of a symbol, and its documentation.", true),
       tool("symbols", "Outline of a file",
            "Lists the classes, functions and variables that a file defines, with their lines.",
            false)});
  return kTools;
}

const char* kind_name(std::uint64_t kind) {
  static constexpr std::array kNames = {
      "symbol",   "file",     "module",        "namespace",   "package",     "class",
      "method",   "property", "field",         "constructor", "enum",        "interface",
      "function", "variable", "constant",      "string",      "number",      "boolean",
      "array",    "object",   "key",           "null",        "enum member", "struct",
      "event",    "operator", "type parameter"};
  return kNames[kind < kNames.size() ? kind : 0];
}

// What a language server sends is looked at with care: a member that is not there is null.
const Json& member(const Json& object, const char* name) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

std::uint64_t number(const Json& value) {
  return value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
}

std::string string_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : "";
}

// {"value": ...}, a text, or a list of both.
std::string hover_text(const Json& contents) {
  if (contents.is_string()) return contents.get<std::string>();
  if (contents.is_object()) return string_of(member(contents, "value"));
  std::string text;
  if (!contents.is_array()) return text;
  for (const auto& part : contents) {
    const std::string more = hover_text(part.is_array() ? Json() : part);
    if (!text.empty() && !more.empty()) text += "\n\n";
    text += more;
  }
  return text;
}

// DocumentSymbol with children, or the older SymbolInformation.
void list_symbols(const Json& symbols, int depth, std::string& text) {
  if (!symbols.is_array() || depth > kMaxDepth) return;
  for (const auto& symbol : symbols) {
    const Json& own = member(symbol, "selectionRange");
    const Json& range = own.is_object() ? own : member(member(symbol, "location"), "range");
    text += fmt::format("{}{}: {} {}\n", std::string(static_cast<std::size_t>(depth) * 2, ' '),
                        number(member(member(range, "start"), "line")) + 1,
                        kind_name(number(member(symbol, "kind"))),
                        escape_line(string_of(member(symbol, "name"))));
    list_symbols(member(symbol, "children"), depth + 1, text);
  }
}

std::string extension_of(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(dot + 1);
}

Result<std::string> read_all(const Fd& file, const std::string& path) {
  std::string text;
  std::array<char, 65536> buffer{};
  while (true) {
    const ssize_t got = ::read(file.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "cannot read {}", escape_line(path));
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > kMaxFile) {
      return fail("{} is larger than {}", escape_line(path), format_size(kMaxFile));
    }
  }
}

}  // namespace

std::vector<LanguageSpec> known_languages() {
  const std::string variant = "the image variant language-servers has it";
  return {{.command = {"clangd", "--log=error"},
           .extensions = {{"c", "c"},
                          {"cc", "cpp"},
                          {"cpp", "cpp"},
                          {"cxx", "cpp"},
                          {"h", "cpp"},
                          {"hh", "cpp"},
                          {"hpp", "cpp"},
                          {"hxx", "cpp"},
                          {"ipp", "cpp"}},
           .hint = variant},
          {.command = {"typescript-language-server", "--stdio"},
           .extensions = {{"ts", "typescript"},
                          {"mts", "typescript"},
                          {"cts", "typescript"},
                          {"tsx", "typescriptreact"},
                          {"js", "javascript"},
                          {"mjs", "javascript"},
                          {"cjs", "javascript"},
                          {"jsx", "javascriptreact"}},
           // It would ask npm for the types of what the project uses. And while the project is
           // being read, a second server that knows single files only would answer instead.
           .options = {{"disableAutomaticTypingAcquisition", true},
                       {"tsserver", {{"useSyntaxServer", "never"}}}},
           .hint = variant},
          {.command = {"pyright-langserver", "--stdio"},
           .extensions = {{"py", "python"}, {"pyi", "python"}},
           .hint = variant}};
}

Result<LanguageSpec> parse_language(std::string_view text) {
  const std::size_t equals = text.find('=');
  const std::size_t colon = text.substr(0, equals).find(':');
  LanguageSpec spec;
  if (equals != std::string_view::npos && colon != std::string_view::npos && colon > 0) {
    for (const auto& extension : split(text.substr(colon + 1, equals - colon - 1), ',')) {
      const auto name = trim(extension);
      if (!name.empty()) spec.extensions.emplace(name, text.substr(0, colon));
    }
    for (const auto& word : split(text.substr(equals + 1), ' ')) {
      if (!word.empty()) spec.command.push_back(word);
    }
  }
  if (!spec.extensions.empty() && !spec.command.empty()) return spec;
  return fail(ErrorKind::kInvalidInput,
              "'{}' is no language; write NAME:EXTENSION[,EXTENSION...]=COMMAND, such as "
              "go:go=gopls",
              escape_line(text));
}

Server::Server(boost::asio::any_io_executor executor, workspace::Root root,
               std::vector<LanguageSpec> languages, Send send)
    : root_(std::move(root)), send_(std::move(send)) {
  for (auto& spec : languages) {
    languages_.push_back(
        std::make_shared<LanguageServer>(executor, std::move(spec), root_.path(),
                                         [this](const std::string& path) { return read(path); }));
  }
}

void Server::stop() {
  send_ = nullptr;
  for (const auto& language : languages_) language->stop();
}

// Inside the workspace by the kernel's own check. Elsewhere, where definitions may be, as the user
// that this server is.
Result<std::string> Server::read(const std::string& path) const {
  if (path == root_.path() || path.starts_with(root_.path() + "/")) {
    const Fd file = TRY(root_.open_file(path, O_RDONLY | O_NONBLOCK));
    return read_all(file, path);
  }
  const Fd file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file) return fail_errno(errno, "cannot open {}", escape_line(path));
  return read_all(file, path);
}

void Server::receive(std::string_view line) {
  const Json message = Json::parse(line, nullptr, false);
  if (!message.is_object()) {
    send_error(nullptr, -32700, "this is not a JSON object");
    return;
  }
  const Json& id = member(message, "id");
  const std::string method = string_of(member(message, "method"));
  const Json& params = member(message, "params");
  if (method == "notifications/cancelled") {
    calls_.erase(member(params, "requestId").dump());
  } else if (!id.is_null() && !method.empty()) {
    handle_request(id, method, params);
  }
}

void Server::handle_request(const Json& id, const std::string& method, const Json& params) {
  const auto answer = [&](Json result) {
    send({{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(result)}});
  };
  if (method == "initialize") {
    const std::string asked = string_of(member(params, "protocolVersion"));
    const auto known = std::ranges::find(kVersions, asked);
    answer({{"protocolVersion", known == kVersions.end() ? kVersions.front() : *known},
            {"capabilities", {{"tools", Json::object()}}},
            {"serverInfo",
             {{"name", "agent-lsp"}, {"title", "Language servers"}, {"version", AGENT_VM_VERSION}}},
            {"instructions",
             fmt::format("Questions about the code in {}, answered by language servers. The first "
                         "one of a language waits for its server to start.",
                         root_.path())}});
  } else if (method == "ping") {
    answer(Json::object());
  } else if (method == "tools/list") {
    answer({{"tools", tools()}});
  } else if (method == "tools/call") {
    call_tool(id, params);
  } else {
    send_error(id, kMethodNotFound, "there is no method " + escape_line(method));
  }
}

void Server::call_tool(const Json& id, const Json& params) {
  const std::string name = string_of(member(params, "name"));
  const Json& given = member(params, "arguments");
  const Json arguments = given.is_null() ? Json::object() : given;
  const Status checked = workspace::check_arguments(tools(), name, arguments);
  if (!checked && checked.error().kind() == ErrorKind::kNotFound) {
    send_error(id, kInvalidParams, checked.error().message());
    return;
  }
  calls_.insert(id.dump());
  const Status started = checked ? start_tool(id, name, arguments) : checked;
  if (!started) finish(id, started.error().message(), true);  // a model can correct that
}

Status Server::start_tool(const Json& id, const std::string& tool, const Json& arguments) {
  const std::string relative = TRY(root_.relative(arguments.at("path").get<std::string>()));
  const std::string path = root_.path() + "/" + relative;
  const auto server = TRY(server_of(path));
  // Also for `symbols`: what cannot be read is said at once, by name.
  const std::string text = TRY(read(path));
  Json params = {{"textDocument", {{"uri", to_uri(path)}}}};
  if (arguments.contains("symbol")) {
    const std::uint64_t line =
        arguments.contains("line") ? arguments.at("line").get<std::uint64_t>() : 0;
    const Place place = TRY_CONTEXT(
        find_symbol(text, arguments.at("symbol").get<std::string>(), line), "{}", relative);
    params["position"] = {{"line", place.line}, {"character", place.column}};
  }
  std::string method = "textDocument/" + tool;
  Show show = [this](const Reply& reply) { return show_places(reply); };
  if (tool == "references") {
    params["context"] = {{"includeDeclaration", true}};
  } else if (tool == "hover") {
    show = [](const Reply& reply) {
      return escape_control(hover_text(member(reply.result, "contents")));
    };
  } else if (tool == "symbols") {
    method = "textDocument/documentSymbol";
    show = [](const Reply& reply) {
      std::string outline;
      list_symbols(reply.result, 0, outline);
      return outline;
    };
  }
  server->ask(path, method, std::move(params),
              [weak = weak_from_this(), id, show](const Result<Reply>& reply) {
                const auto self = weak.lock();
                if (!self) return;
                if (!reply) {
                  self->finish(id, reply.error().message(), true);
                  return;
                }
                std::string answer = show(*reply);
                if (answer.empty()) answer = "Nothing was found.\n";
                if (reply->indexing) {
                  answer += "The language server has not read all files yet: ask again later.\n";
                }
                self->finish(id, workspace::limit_output(answer), false);
              });
  return {};
}

Result<std::shared_ptr<LanguageServer>> Server::server_of(const std::string& path) const {
  const std::string extension = extension_of(path);
  std::vector<std::string> known;
  for (const auto& language : languages_) {
    if (language->spec().extensions.contains(extension)) return language;
    for (const auto& [name, id] : language->spec().extensions) known.push_back("." + name);
  }
  return fail(ErrorKind::kInvalidInput, "no language server is known for {}; there is one for {}",
              escape_line(path.substr(path.rfind('/') + 1)), join(known, " "));
}

std::string Server::show_places(const Reply& reply) const {
  const Json list = reply.result.is_object() ? Json::array({reply.result}) : reply.result;
  std::string text;
  if (!list.is_array()) return text;
  std::size_t shown = 0;
  for (const auto& place : list) {
    if (shown++ == kMaxPlaces) {
      text += fmt::format("... and {} more\n", list.size() - kMaxPlaces);
      break;
    }
    text += show_place(place);
  }
  return text;
}

// Of a Location or a LocationLink: "src/a.cc:12:5: int area(int side) {".
std::string Server::show_place(const Json& place) const {
  const bool link = member(place, "targetUri").is_string();
  const std::string uri = string_of(member(place, link ? "targetUri" : "uri"));
  const Json& start = member(member(place, link ? "targetSelectionRange" : "range"), "start");
  const std::uint64_t line = number(member(start, "line"));
  const std::string path = path_of_uri(uri);
  const auto text = path.empty() ? Result<std::string>("") : read(path);
  const std::string content = text ? line_of(*text, line).substr(0, kMaxLine) : "";
  const auto inside = root_.relative(path.empty() ? uri : path);
  return fmt::format("{}:{}:{}: {}\n",
                     escape_line(!path.empty() && inside ? *inside
                                 : path.empty()          ? uri
                                                         : path),
                     line + 1, number(member(start, "character")) + 1, escape_line(content));
}

void Server::finish(const Json& id, const std::string& text, bool is_error) {
  if (calls_.erase(id.dump()) == 0) return;  // cancelled: nobody waits
  Json body = {{"content", Json::array({{{"type", "text"}, {"text", text}}})}};
  if (is_error) body["isError"] = true;
  send({{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(body)}});
}

void Server::send(const Json& message) {
  if (send_) send_(message.dump(-1, ' ', false, Json::error_handler_t::replace));
}

void Server::send_error(const Json& id, int code, const std::string& message) {
  send({{"jsonrpc", "2.0"}, {"id", id}, {"error", {{"code", code}, {"message", message}}}});
}

}  // namespace agent_vm::languages

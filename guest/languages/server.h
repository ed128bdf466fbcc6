// The MCP server `agent-lsp`: questions about a workspace's code, answered by language servers.
//
// Its tools take what a model knows (a file, a word in it, perhaps its line) and not the columns
// that a language server wants, and answer with places that the other tools take.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "languages/language_server.h"
#include "workspace/root.h"

namespace agent_vm::languages {

// clangd, typescript-language-server and pyright.
std::vector<LanguageSpec> known_languages();

// "go:go=gopls serve": the protocol's name of a language, extensions, and the command of its
// server.
Result<LanguageSpec> parse_language(std::string_view text);

class Server : public std::enable_shared_from_this<Server> {
 public:
  using Send = std::function<void(std::string line)>;
  // Of two languages with the same extension the first one has it.
  Server(boost::asio::any_io_executor executor, workspace::Root root,
         std::vector<LanguageSpec> languages, Send send);

  // A line of MCP's stdio transport.
  void receive(std::string_view line);
  // Ends the language servers.
  void stop();

 private:
  using Show = std::function<std::string(const Reply&)>;

  void handle_request(const Json& id, const std::string& method, const Json& params);
  void call_tool(const Json& id, const Json& params);
  Status start_tool(const Json& id, const std::string& tool, const Json& arguments);
  Result<std::shared_ptr<LanguageServer>> server_of(const std::string& path) const;
  Result<std::string> read(const std::string& path) const;
  void finish(const Json& id, const std::string& text, bool is_error);
  void send(const Json& message);
  void send_error(const Json& id, int code, const std::string& message);

  std::string show_places(const Reply& reply) const;
  std::string show_place(const Json& place) const;

  workspace::Root root_;
  std::vector<std::shared_ptr<LanguageServer>> languages_;
  Send send_;
  std::set<std::string> calls_;  // ids, as JSON, that somebody waits for
};

}  // namespace agent_vm::languages

// agent-lsp: a stdio MCP server that asks language servers about the code of a workspace.
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/streambuf.hpp>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <istream>
#include <string_view>

#include "base/log.h"
#include "languages/server.h"

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using namespace agent_vm;

constexpr const char* kUsage =
    "usage: agent-lsp [--root FOLDER] [--language NAME:EXTENSION[,...]=COMMAND]...\n"
    "\n"
    "An MCP server on standard input and output. Its tools (definition, references, hover, "
    "symbols)\n"
    "ask clangd, typescript-language-server and pyright about the files of FOLDER.\n"
    "  --root      the workspace; the current folder when left out\n"
    "  --language  another language server, or one instead of those: go:go=gopls\n"
    "  --version   print the version\n";

constexpr std::size_t kMaxLine = 8U << 20U;

void write_line(std::string line) {
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

// Until the client closes its end, or a signal. Then the language servers are stopped, and run()
// returns once they are gone.
int serve(workspace::Root root, std::vector<languages::LanguageSpec> specs) {
  asio::io_context io;
  const auto server = std::make_shared<languages::Server>(io.get_executor(), std::move(root),
                                                          std::move(specs), write_line);
  asio::posix::stream_descriptor input(io, ::dup(STDIN_FILENO));
  asio::streambuf buffer(kMaxLine);
  asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&](const error_code& error, int) {
    if (!error) input.close();
  });
  std::function<void()> read_next = [&] {
    asio::async_read_until(input, buffer, '\n', [&](const error_code& error, std::size_t) {
      if (error) {
        if (error == asio::error::not_found) log::error("a line is longer than {} bytes", kMaxLine);
        signals.cancel();
        server->stop();
        return;
      }
      std::istream stream(&buffer);
      std::string line;
      std::getline(stream, line);
      if (!line.empty()) server->receive(line);
      read_next();
    });
  };
  read_next();
  io.run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string folder = ".";
  std::vector<languages::LanguageSpec> specs;
  log::to_stderr(log::Level::kInfo);
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--root" && i + 1 < argc) {
      folder = argv[++i];
    } else if (argument == "--language" && i + 1 < argc) {
      auto spec = languages::parse_language(argv[++i]);
      if (!spec) {
        log::error("{}", spec.error().message());
        return 2;
      }
      specs.push_back(std::move(*spec));
    } else if (argument == "--help" || argument == "-h") {
      std::fputs(kUsage, stdout);
      return 0;
    } else if (argument == "--version") {
      std::puts("agent-lsp " AGENT_VM_VERSION);
      return 0;
    } else {
      std::fprintf(stderr, "agent-lsp: unexpected argument: %s\n%s", argv[i], kUsage);
      return 2;
    }
  }
  // What was asked for goes before what is known.
  for (auto& spec : languages::known_languages()) specs.push_back(std::move(spec));
  std::error_code error;
  const auto path = std::filesystem::canonical(folder, error);
  if (error) {
    log::error("cannot find the workspace {}: {}", folder, error.message());
    return 2;
  }
  // A language server that died is noticed by its pidfd.
  std::signal(SIGPIPE, SIG_IGN);
  auto root = workspace::Root::open(path);
  if (!root) {
    log::error("{}", root.error().message());
    return 2;
  }
  return serve(std::move(*root), std::move(specs));
}

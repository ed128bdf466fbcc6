#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>

#include "cli/exit_code.h"
#include "cli/mcp_bridge.h"
#include "cli/mcp_verbs.h"
#include "cli/verbs.h"
#include "config/names.h"

namespace agent_vm {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMaxLine = 64U << 20U;
// A request waits that long for a VM that is being restarted.
constexpr auto kPatience = 5min;

struct Options {
  std::string vm;
  std::string server;
};

// All of it or an error: a client that reads no more has gone.
Status write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) {
      pollfd room{fd, POLLOUT, 0};
      static_cast<void>(::poll(&room, 1, -1));
      continue;
    }
    if (written < 0) return fail_errno(errno, "cannot write");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

// The client's lines, from whatever standard input is.
class Lines {
 public:
  explicit Lines(asio::io_context& io) : input_(io) {
    boost::system::error_code unusable;
    // Files and /dev/null cannot be waited for, and need not be.
    flags_ = ::fcntl(STDIN_FILENO, F_GETFL);
    input_.assign(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), unusable);
    waits_ = !unusable;
  }
  // Whoever started us may share it, and does not expect that reading it fails.
  ~Lines() {
    if (flags_ >= 0) static_cast<void>(::fcntl(STDIN_FILENO, F_SETFL, flags_));
  }
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;

  // False at the end.
  Task<bool> next(std::string& line) {
    while (true) {
      const std::size_t end = text_.find('\n', looked_);
      if (end != std::string::npos) {
        line = text_.substr(0, end);
        text_.erase(0, end + 1);
        looked_ = 0;
        co_return true;
      }
      looked_ = text_.size();
      if (looked_ > kMaxLine || !co_await read_more()) break;
    }
    line = std::exchange(text_, {});
    looked_ = 0;
    co_return !line.empty() && line.size() <= kMaxLine;
  }

 private:
  Task<bool> read_more() {
    std::array<char, 65536> piece;
    if (!waits_) {
      const ssize_t got = ::read(STDIN_FILENO, piece.data(), piece.size());
      if (got > 0) text_.append(piece.data(), static_cast<std::size_t>(got));
      co_return got > 0;
    }
    const auto [error, got] =
        co_await input_.async_read_some(asio::buffer(piece), asio::as_tuple(asio::use_awaitable));
    text_.append(piece.data(), got);
    co_return !error;
  }

  asio::posix::stream_descriptor input_;
  bool waits_ = false;
  int flags_ = -1;
  std::string text_;
  std::size_t looked_ = 0;
};

Task<void> serve(asio::io_context& io, McpBridge& bridge) {
  Lines lines(io);
  std::string line;
  while (co_await lines.next(line)) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    co_await bridge.take(std::move(line));
    line.clear();
  }
  co_await bridge.finish();
  io.stop();
}

Result<int> bridge(Context& context, const Options& options) {
  const VmDirectory vm = TRY(context.vm(options.vm));
  const VmConfig config = TRY(vm.read_config());
  if (!options.server.empty()) TRY(valid_mcp_server_name(options.server));
  if (context.out.interactive()) {
    context.out.note("This is an MCP server for programs: it expects JSON-RPC on standard input.");
  }
  const auto patience = context.timeout_text.empty()
                            ? std::chrono::milliseconds(kPatience)
                            : std::chrono::milliseconds(TRY(context.deadline()).poll_ms());
  asio::io_context io(1);
  Status written;
  const auto write = [&](const std::string& line) {
    written = write_all(STDOUT_FILENO, line + "\n");
    if (!written) io.stop();
  };
  McpBridge bridge(io, vm, options.server, write, patience);
  start_detached(io, serve(io, bridge));
  io.run();
  return kExitOk;
}

}  // namespace

void add_mcp(CLI::App& app, Context& context) {
  CLI::App* mcp = add_verb(
      app, "mcp", "a VM's MCP servers: use one over stdio, list, add, call, configure clients",
      "  agent-vm mcp my-branch                     is a stdio MCP server: what a client runs\n"
      "  agent-vm mcp my-branch files               the same for another server than the default\n"
      "  agent-vm mcp config my-branch --client claude-code --write\n"
      "  agent-vm mcp add files my-branch -- npx -y @modelcontextprotocol/server-filesystem "
      "/workspace\n"
      "  agent-vm mcp call read my-branch --arguments '{\"path\": \"README.md\"}'");
  mcp->require_subcommand(0, 1);
  auto options = std::make_shared<Options>();
  add_vm_argument(*mcp, options->vm);
  mcp->add_option("SERVER", options->server, "left out: the VM's default server");
  mcp->callback([&context, mcp, options] {
    if (!mcp->get_subcommands().empty()) return;
    context.action = [&context, options] { return bridge(context, *options); };
  });
  add_mcp_list(*mcp, context);
  add_mcp_tools(*mcp, context);
  add_mcp_call(*mcp, context);
  add_mcp_add(*mcp, context);
  add_mcp_remove(*mcp, context);
  add_mcp_logs(*mcp, context);
  add_mcp_config(*mcp, context);
}

}  // namespace agent_vm

// Lines of a hostile server and of hostile clients, in any order: what goes to the other side must
// be one line of JSON each, and nothing is kept without bound.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/text.h"
#include "mcp/json_scanner.h"
#include "mcp/session.h"
#include "mcp/shared_server.h"
#include "mcp/stateless_child.h"

namespace {

using namespace agent_vm;
using namespace agent_vm::mcp;

void check_lines(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) {
    JsonScanner scanner(line);
    const bool one = scanner.value().has_value();
    scanner.skip_space();
    if (!one || !scanner.at_end() || line.find('\n') != std::string::npos) std::abort();
  }
}

void play_session(const std::vector<std::string>& lines) {
  Session session("s", "server");
  session.server_started();
  for (const std::string& line : lines) {
    if (line.starts_with('<')) {
      check_lines(session.server_line(line.substr(1)).to_server);
    } else if (line.starts_with('!')) {
      session.server_lost("gone");
      check_lines(session.server_started());
    } else if (const auto accepted = session.post(line)) {
      check_lines(accepted->to_server);
    }
  }
}

void play_shared(const std::vector<std::string>& lines) {
  static const StateSigner signer(std::string(32, 'k'));
  SharedServer server(1, R"({"sampling":{},"elicitation":{}})", "", signer,
                      std::make_shared<ServerKnowledge>());
  check_lines(server.server_started());
  server.server_line(
      R"({"jsonrpc":"2.0","id":"agent-vm-initialize","result":{"capabilities":)"
      R"({"tools":{"listChanged":true},"logging":{},"resources":{"subscribe":true}}}})");
  std::vector<StreamId> streams;
  for (const std::string& line : lines) {
    if (line.starts_with('<')) {
      check_lines(server.server_line(line.substr(1)).to_server);
    } else if (line.starts_with('?')) {
      for (const StreamId id : streams) {
        if (server.input_wanted(id)) server.conclude_with_input(id, 0);
      }
      check_lines(server.sweep(static_cast<std::int64_t>(line.size())));
    } else if (line.starts_with('-') && !streams.empty()) {
      check_lines(server.cancel(streams.back()));
      streams.pop_back();
    } else if (const auto envelope = parse_message(line);
               envelope && envelope->kind == MessageKind::kRequest) {
      StatelessRequest request;
      request.id = envelope->id;
      request.method = envelope->method;
      request.params = line.substr(line.find('{'));
      request.capabilities = server.capabilities();
      if (const auto accepted = server.request(request, 0)) {
        check_lines(accepted->to_server);
        streams.push_back(accepted->stream);
      }
    }
    for (const StreamId id : streams) {
      const EventStream* stream = server.stream(id);
      if (stream == nullptr) continue;
      for (auto event = stream->after(0); event; event = stream->after(event->sequence)) {
        check_lines({*event->message});
      }
    }
  }
}

void play_adapter(const std::vector<std::string>& lines) {
  StatelessChild child;
  child.from_client(
      R"({"jsonrpc":"2.0","id":0,"method":"initialize","params":{"capabilities":{}}})");
  child.from_server(R"({"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"x"}})");
  child.from_server(R"({"jsonrpc":"2.0","id":"agent-vm-discover","result":{"supportedVersions":)"
                    R"(["2026-07-28"],"capabilities":{"tools":{"listChanged":true}}}})");
  for (const std::string& line : lines) {
    const bool of_server = line.starts_with('<');
    auto out = of_server ? child.from_server(line.substr(1)) : child.from_client(line);
    for (std::string& text : out.to_server) to_one_line(text);
    // A client's line that is no message passes as it is; the session refuses such before.
    if (of_server || parse_message(line)) check_lines(out.to_server);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> lines = split_lines(text);
  play_session(lines);
  play_shared(lines);
  play_adapter(lines);
  return 0;
}

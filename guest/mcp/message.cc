#include "mcp/message.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "mcp/json_scanner.h"

namespace agent_vm::mcp {
namespace {

bool is_integer(std::string_view raw) {
  if (!raw.empty() && raw.front() == '-') raw.remove_prefix(1);
  return !raw.empty() &&
         std::all_of(raw.begin(), raw.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_id(std::string_view raw) {
  return !raw.empty() && (raw.front() == '"' || is_integer(raw));
}

// Reads the envelope in one pass over the text.
class EnvelopeReader {
 public:
  explicit EnvelopeReader(std::string_view text) : scanner_(text) {}

  MessageResult<Envelope> read() {
    scanner_.skip_space();
    if (scanner_.peek() != '{') {
      // Still say "not JSON" first: a truncated text is not an invalid request.
      if (!scanner_.value()) return parse_error();
      return refuse("a message must be a JSON object");
    }
    const bool complete = scanner_.object([&](const std::string& key) { return member(key); });
    if (!complete) {
      if (!problem_.empty()) return refuse(problem_);
      return parse_error();
    }
    scanner_.skip_space();
    if (!scanner_.at_end())
      return tl::unexpected(MessageError{kParseError, trailing(), "null", {}});
    return classify();
  }

 private:
  bool member(const std::string& key) {
    static const std::array<std::string_view, 6> kOnce = {"jsonrpc", "id",     "method",
                                                          "params",  "result", "error"};
    if (std::find(kOnce.begin(), kOnce.end(), key) != kOnce.end() && !seen_.insert(key).second) {
      return stop(fmt::format("the member {} comes twice", quote_json(key)));
    }
    scanner_.skip_space();
    if (key == "params" && scanner_.peek() == '{') return params();
    if (key == "result" && scanner_.peek() == '{') return result();
    const auto value = scanner_.value(1);
    if (!value) return false;
    if (key == "jsonrpc") jsonrpc_ = *value;
    if (key == "id") envelope_.id = *value;
    if (key == "method") {
      if (value->front() != '"') return stop("the member \"method\" must be a string");
      envelope_.method = JsonScanner::decode_string(*value);
    }
    return true;
  }

  bool params() {
    std::set<std::string> seen;
    return scanner_.object([&](const std::string& key) {
      const bool routes = key == "_meta" || key == "requestId" || key == "progressToken";
      if (routes && !seen.insert(key).second) {
        return stop(fmt::format("the member {} of params comes twice", quote_json(key)));
      }
      scanner_.skip_space();
      if (key == "_meta" && scanner_.peek() == '{') return meta();
      const auto value = scanner_.value(2);
      if (!value) return false;
      if (key == "requestId") envelope_.request_id = *value;
      if (key == "progressToken") envelope_.progress_of = *value;
      if (key == "protocolVersion" && value->front() == '"') {
        envelope_.protocol_version = JsonScanner::decode_string(*value);
      }
      return true;
    });
  }

  bool meta() {
    std::set<std::string> seen;
    return scanner_.object([&](const std::string& key) {
      const bool routes =
          key == "progressToken" || key == "io.modelcontextprotocol/protocolVersion";
      if (routes && !seen.insert(key).second) {
        return stop(fmt::format("the member {} of params._meta comes twice", quote_json(key)));
      }
      const auto value = scanner_.value(3);
      if (!value) return false;
      if (key == "progressToken") envelope_.progress_token = *value;
      if (key == "io.modelcontextprotocol/protocolVersion" && value->front() == '"') {
        envelope_.meta_protocol_version = JsonScanner::decode_string(*value);
      }
      return true;
    });
  }

  bool result() {
    return scanner_.object([&](const std::string& key) {
      const auto value = scanner_.value(2);
      if (!value) return false;
      if (key == "protocolVersion" && value->front() == '"') {
        envelope_.protocol_version = JsonScanner::decode_string(*value);
      }
      return true;
    });
  }

  MessageResult<Envelope> classify() {
    const bool has_result = seen_.count("result") != 0;
    const bool has_error = seen_.count("error") != 0;
    if (jsonrpc_ != "\"2.0\"") return refuse("the member \"jsonrpc\" must be \"2.0\"");
    if (seen_.count("method") != 0) {
      if (has_result || has_error) return refuse("a message has either a method or a result");
      envelope_.kind = seen_.count("id") != 0 ? MessageKind::kRequest : MessageKind::kNotification;
      if (envelope_.kind == MessageKind::kRequest && !is_id(envelope_.id)) {
        return refuse("the member \"id\" of a request must be a string or an integer");
      }
      return std::move(envelope_);
    }
    if (has_result == has_error) {
      return refuse("a message needs a method, a result or an error, and only one of them");
    }
    envelope_.kind = MessageKind::kResponse;
    envelope_.is_error = has_error;
    if (!is_id(envelope_.id) && !(has_error && (envelope_.id == "null" || envelope_.id.empty()))) {
      return refuse("the member \"id\" of a response must be a string or an integer");
    }
    return std::move(envelope_);
  }

  bool stop(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }
  tl::unexpected<MessageError> refuse(std::string message) const {
    return tl::unexpected(MessageError{kInvalidRequest,
                                       std::move(message),
                                       is_id(envelope_.id) ? std::string(envelope_.id) : "null",
                                       {}});
  }
  tl::unexpected<MessageError> parse_error() const {
    return tl::unexpected(MessageError{kParseError, "not JSON: " + scanner_.error(), "null", {}});
  }
  std::string trailing() const {
    return fmt::format("not JSON: something follows the message at byte {}", scanner_.position());
  }

  JsonScanner scanner_;
  Envelope envelope_;
  std::string_view jsonrpc_;
  std::set<std::string> seen_;
  std::string problem_;
};

}  // namespace

MessageResult<Envelope> parse_message(std::string_view text) {
  return EnvelopeReader(text).read();
}

MessageResult<std::vector<std::string_view>> split_body(std::string_view body, bool allow_batch) {
  JsonScanner scanner(body);
  scanner.skip_space();
  if (scanner.peek() != '[') return std::vector<std::string_view>{body};
  std::vector<std::string_view> messages;
  const bool complete = scanner.array([&] {
    const auto value = scanner.value(1);
    if (value) messages.push_back(*value);
    return value.has_value();
  });
  scanner.skip_space();
  if (!complete || !scanner.at_end()) {
    return tl::unexpected(MessageError{
        kParseError,
        complete ? "not JSON: something follows the batch" : "not JSON: " + scanner.error(),
        "null",
        {}});
  }
  if (!allow_batch) {
    return tl::unexpected(
        MessageError{kInvalidRequest,
                     "batches exist only in protocol version 2025-03-26; send one message",
                     "null",
                     {}});
  }
  if (messages.empty()) {
    return tl::unexpected(MessageError{kInvalidRequest, "an empty batch", "null", {}});
  }
  return messages;
}

std::string id_key(std::string_view raw) {
  if (!raw.empty() && raw.front() == '"') return "s" + JsonScanner::decode_string(raw);
  return raw == "-0" ? "n0" : "n" + std::string(raw);
}

bool id_is_portable(std::string_view raw) {
  if (!raw.empty() && raw.front() == '"') return true;
  if (!raw.empty() && raw.front() == '-') raw.remove_prefix(1);
  return raw.size() < 16;  // 2^53 has 16 digits
}

std::string with_id(std::string_view text, std::string_view view, std::string_view raw_id) {
  const auto offset = static_cast<std::size_t>(view.data() - text.data());
  std::string out;
  out.reserve(text.size() + raw_id.size());
  out.append(text.substr(0, offset)).append(raw_id).append(text.substr(offset + view.size()));
  return out;
}

void to_one_line(std::string& text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
}

std::string quote_json(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string error_message(std::string_view raw_id, int code, std::string_view message,
                          std::string_view raw_data) {
  return fmt::format(R"({{"jsonrpc":"2.0","id":{},"error":{{"code":{},"message":{}{}{}}}}})",
                     raw_id.empty() ? "null" : raw_id, code, quote_json(message),
                     raw_data.empty() ? "" : R"(,"data":)", raw_data);
}

}  // namespace agent_vm::mcp

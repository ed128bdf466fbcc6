// A strict JSON reader that builds nothing: it checks a text and tells where its values lie.
//
// The gateway forwards messages byte for byte, so it must find a few members (id, method, ...)
// without turning the message into a document and back: that would change 2^63, 1e400, key order
// and duplicate keys. RFC 8259 to the letter, and UTF-8 is checked, because whatever passes here is
// read again by a parser of someone else's choice.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace agent_vm::mcp {

class JsonScanner {
 public:
  // Deeper nesting is refused: the servers behind the gateway recurse.
  static constexpr int kMaxDepth = 256;

  // `text` must outlive the scanner.
  explicit JsonScanner(std::string_view text) : text_(text) {}

  void skip_space();
  bool at_end() const { return position_ == text_.size(); }
  std::size_t position() const { return position_; }
  // The next byte, or NUL at the end.
  char peek() const { return at_end() ? '\0' : text_[position_]; }
  // Consumes `c` (after white space) when it is next.
  bool take(char c);

  // Each of these consumes one value and returns its text, quotes included, or nothing when the
  // text is not JSON there; error() then says why.
  std::optional<std::string_view> value(int depth = 0);
  std::optional<std::string_view> string();

  // For each member of the object that starts here: on_member(key) must consume the value and
  // return false to stop. The key is decoded. False when the text is not an object, or was stopped.
  template <typename OnMember>
  bool object(OnMember&& on_member) {
    if (!take('{')) return fail("expected an object");
    if (take('}')) return true;
    for (;;) {
      skip_space();
      const auto key = string();
      if (!key) return false;
      if (!take(':')) return fail("expected ':' after a key");
      if (!on_member(decode_string(*key))) return false;
      if (take(',')) continue;
      return take('}') || fail("expected ',' or '}' in an object");
    }
  }
  // The same for the elements of an array.
  template <typename OnElement>
  bool array(OnElement&& on_element) {
    if (!take('[')) return fail("expected an array");
    if (take(']')) return true;
    for (;;) {
      if (!on_element()) return false;
      if (take(',')) continue;
      return take(']') || fail("expected ',' or ']' in an array");
    }
  }

  // "expected ':' after a key at byte 17"; empty while there was no error.
  std::string error() const;

  // The text of a string token (with its quotes) as UTF-8; a lone surrogate becomes U+FFFD.
  static std::string decode_string(std::string_view token);

 private:
  bool fail(const char* what);
  bool literal(std::string_view word);
  bool number();
  bool escape();
  bool utf8_sequence();

  std::string_view text_;
  std::size_t position_ = 0;
  const char* error_ = nullptr;
  std::size_t error_position_ = 0;
};

}  // namespace agent_vm::mcp

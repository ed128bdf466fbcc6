#include "mcp/json_scanner.h"

#include <fmt/format.h>

namespace agent_vm::mcp {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

unsigned read_hex4(std::string_view digits) {
  unsigned code = 0;
  for (const char c : digits.substr(0, 4)) code = code * 16 + static_cast<unsigned>(hex_value(c));
  return code;
}

void append_utf8(std::string& out, unsigned code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

}  // namespace

bool JsonScanner::fail(const char* what) {
  if (error_ == nullptr) {
    error_ = what;
    error_position_ = position_;
  }
  return false;
}

std::string JsonScanner::error() const {
  if (error_ == nullptr) return {};
  if (error_position_ >= text_.size()) return fmt::format("{} at the end of the text", error_);
  return fmt::format("{} at byte {}", error_, error_position_);
}

void JsonScanner::skip_space() {
  while (position_ < text_.size()) {
    const char c = text_[position_];
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
    ++position_;
  }
}

bool JsonScanner::take(char c) {
  skip_space();
  if (peek() != c || at_end()) return false;
  ++position_;
  return true;
}

bool JsonScanner::literal(std::string_view word) {
  if (text_.substr(position_, word.size()) != word) return fail("unexpected word");
  position_ += word.size();
  return true;
}

bool JsonScanner::number() {
  if (peek() == '-') ++position_;
  if (!is_digit(peek())) return fail("unexpected character");
  if (peek() == '0') {
    ++position_;
  } else {
    while (is_digit(peek())) ++position_;
  }
  if (peek() == '.') {
    ++position_;
    if (!is_digit(peek())) return fail("expected a digit after the decimal point");
    while (is_digit(peek())) ++position_;
  }
  if (peek() == 'e' || peek() == 'E') {
    ++position_;
    if (peek() == '+' || peek() == '-') ++position_;
    if (!is_digit(peek())) return fail("expected a digit in the exponent");
    while (is_digit(peek())) ++position_;
  }
  return true;
}

bool JsonScanner::escape() {
  ++position_;  // the backslash
  const char c = peek();
  if (c == 'u') {
    for (int i = 1; i <= 4; ++i) {
      if (position_ + i >= text_.size() || hex_value(text_[position_ + i]) < 0) {
        return fail("expected four hexadecimal digits after \\u");
      }
    }
    position_ += 5;
    return true;
  }
  if (at_end() || std::string_view("\"\\/bfnrt").find(c) == std::string_view::npos) {
    return fail("unknown escape in a string");
  }
  ++position_;
  return true;
}

// One multi-byte sequence: no overlong forms, no surrogates, nothing above U+10FFFF.
bool JsonScanner::utf8_sequence() {
  const auto byte = [&](std::size_t i) -> unsigned {
    return position_ + i < text_.size() ? static_cast<unsigned char>(text_[position_ + i]) : 0U;
  };
  const unsigned first = byte(0);
  unsigned length = 0;
  unsigned low = 0x80;
  unsigned high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  } else {
    return fail("invalid UTF-8");
  }
  if (byte(1) < low || byte(1) > high) return fail("invalid UTF-8");
  for (unsigned i = 2; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) return fail("invalid UTF-8");
  }
  position_ += length;
  return true;
}

std::optional<std::string_view> JsonScanner::string() {
  const std::size_t start = position_;
  if (peek() != '"') {
    fail("expected a string");
    return {};
  }
  ++position_;
  while (position_ < text_.size()) {
    const auto c = static_cast<unsigned char>(text_[position_]);
    if (c == '"') {
      ++position_;
      return text_.substr(start, position_ - start);
    }
    if (c < 0x20) {
      fail("control character in a string");
      return {};
    }
    if (c == '\\') {
      if (!escape()) return {};
    } else if (c >= 0x80) {
      if (!utf8_sequence()) return {};
    } else {
      ++position_;
    }
  }
  fail("unterminated string");
  return {};
}

std::optional<std::string_view> JsonScanner::value(int depth) {
  skip_space();
  const std::size_t start = position_;
  bool ok = false;
  if (depth > kMaxDepth) {
    ok = fail("nested too deeply");
  } else if (at_end()) {
    ok = fail("unexpected end");
  } else if (peek() == '{') {
    ok = object([&](const std::string&) { return value(depth + 1).has_value(); });
  } else if (peek() == '[') {
    ok = array([&] { return value(depth + 1).has_value(); });
  } else if (peek() == '"') {
    ok = string().has_value();
  } else if (peek() == 't') {
    ok = literal("true");
  } else if (peek() == 'f') {
    ok = literal("false");
  } else if (peek() == 'n') {
    ok = literal("null");
  } else {
    ok = number();
  }
  if (!ok) return {};
  return text_.substr(start, position_ - start);
}

std::string JsonScanner::decode_string(std::string_view token) {
  const std::string_view body = token.substr(1, token.size() - 2);
  if (body.find('\\') == std::string_view::npos) return std::string(body);
  std::string out;
  out.reserve(body.size());
  for (std::size_t i = 0; i < body.size(); ++i) {
    if (body[i] != '\\') {
      out += body[i];
      continue;
    }
    const char c = body[++i];
    switch (c) {
      case 'b':
        out += '\b';
        break;
      case 'f':
        out += '\f';
        break;
      case 'n':
        out += '\n';
        break;
      case 'r':
        out += '\r';
        break;
      case 't':
        out += '\t';
        break;
      case 'u': {
        unsigned code = read_hex4(body.substr(i + 1));
        i += 4;
        const bool high = code >= 0xD800 && code <= 0xDBFF;
        if (high && body.substr(i + 1, 2) == "\\u") {
          const unsigned low = read_hex4(body.substr(i + 3));
          if (low >= 0xDC00 && low <= 0xDFFF) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            i += 6;
          }
        }
        if (code >= 0xD800 && code <= 0xDFFF) code = 0xFFFD;
        append_utf8(out, code);
        break;
      }
      default:
        out += c;  // " \ /
    }
  }
  return out;
}

}  // namespace agent_vm::mcp

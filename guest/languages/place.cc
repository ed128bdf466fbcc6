#include "languages/place.h"

#include <algorithm>
#include <vector>

#include "base/text.h"

namespace agent_vm::languages {
namespace {

constexpr std::string_view kUriPrefix = "file://";
constexpr std::size_t kMaxLinesNamed = 10;

bool in_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '$' || static_cast<unsigned char>(c) >= 0x80;
}

// Of the whole word, or npos.
std::size_t find_word(std::string_view line, std::string_view word) {
  for (std::size_t at = line.find(word); at != std::string_view::npos;
       at = line.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    const bool begins = at == 0 || !in_word(line[at - 1]) || !in_word(word.front());
    const bool ends = end == line.size() || !in_word(line[end]) || !in_word(word.back());
    if (begins && ends) return at;
  }
  return std::string_view::npos;
}

// Of UTF-8 text: a character of four bytes is two units, any other one.
std::uint64_t utf16_units(std::string_view text) {
  std::uint64_t units = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte & 0xC0U) != 0x80) units += byte >= 0xF0 ? 2 : 1;
  }
  return units;
}

std::size_t last_part(std::string_view symbol) {
  std::size_t at = symbol.size();
  while (at > 0 && in_word(symbol[at - 1])) --at;
  return at == symbol.size() ? 0 : at;  // an operator: where it begins
}

bool unreserved(char c) {
  return (in_word(c) && c != '$' && static_cast<unsigned char>(c) < 0x80) || c == '-' || c == '.' ||
         c == '~' || c == '/';
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Result<Place> find_symbol(std::string_view text, std::string_view symbol, std::uint64_t line) {
  symbol = trim(symbol);
  if (symbol.empty()) return fail(ErrorKind::kInvalidInput, "the symbol is empty");
  const std::vector<std::string> lines = split_lines(text);
  std::vector<std::string> elsewhere;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::size_t at = find_word(lines[i], symbol);
    if (at == std::string_view::npos) continue;
    if (line == 0 || line == i + 1) {
      return Place{i, utf16_units(std::string_view(lines[i]).substr(0, at + last_part(symbol)))};
    }
    elsewhere.push_back(std::to_string(i + 1));
  }
  if (elsewhere.empty()) {
    return fail(ErrorKind::kNotFound, "{} does not stand in this file", escape_line(symbol));
  }
  const bool more = elsewhere.size() > kMaxLinesNamed;
  if (more) elsewhere.resize(kMaxLinesNamed);
  return fail(ErrorKind::kNotFound, "{} does not stand in line {}; it does in {}{}",
              escape_line(symbol), line, join(elsewhere, ", "), more ? ", ..." : "");
}

std::string line_of(std::string_view text, std::uint64_t line) {
  for (; line > 0; --line) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return "";
    text.remove_prefix(end + 1);
  }
  return std::string(trim(text.substr(0, text.find('\n'))));
}

std::string to_uri(std::string_view path) {
  std::string uri(kUriPrefix);
  for (const char c : path) {
    if (unreserved(c)) {
      uri += c;
    } else {
      uri += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return uri;
}

std::string path_of_uri(std::string_view uri) {
  if (!uri.starts_with(kUriPrefix)) return "";
  uri.remove_prefix(kUriPrefix.size());
  std::string path;
  for (std::size_t i = 0; i < uri.size(); ++i) {
    const int high = uri[i] == '%' && i + 2 < uri.size() ? hex_value(uri[i + 1]) : -1;
    const int low = high >= 0 ? hex_value(uri[i + 2]) : -1;
    if (low < 0) {
      path += uri[i];
    } else {
      path += static_cast<char>(high * 16 + low);
      i += 2;
    }
  }
  return path;
}

}  // namespace agent_vm::languages

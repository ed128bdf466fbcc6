// Places in files, as people and models name them (a line and the word that stands there) and as
// the language server protocol does (zero-based, columns in units of UTF-16, files as URIs).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace agent_vm::languages {

struct Place {
  std::uint64_t line = 0;    // zero-based
  std::uint64_t column = 0;  // zero-based, in UTF-16 units

  bool operator==(const Place&) const = default;
};

// Where `symbol` stands as a whole word: in line `line` (one-based), or for the first time in the
// text when that is 0. Of a qualified name, such as Shape.area or ns::f, the place of its last
// part. Models miscount: an error says in which lines it does stand.
Result<Place> find_symbol(std::string_view text, std::string_view symbol, std::uint64_t line);

// Line `line` (zero-based) without white space around it; empty when there is none.
std::string line_of(std::string_view text, std::uint64_t line);

std::string to_uri(std::string_view path);
// The path of a file: URI; empty for any other.
std::string path_of_uri(std::string_view uri);

}  // namespace agent_vm::languages

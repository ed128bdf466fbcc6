#include "cli/output.h"

#include <langinfo.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <cstdlib>

#include "base/text.h"
#include "os/files.h"

namespace agent_vm {
namespace {

std::string_view start_of(Colour colour) {
  switch (colour) {
    case Colour::kGreen:
      return "\x1b[32m";
    case Colour::kYellow:
      return "\x1b[33m";
    case Colour::kRed:
      return "\x1b[31m";
    case Colour::kBold:
      return "\x1b[1m";
    case Colour::kDim:
      return "\x1b[2m";
    case Colour::kNone:
      break;
  }
  return "";
}

std::string painted(Colour colour, std::string_view text, bool enabled) {
  const std::string safe = escape_control(text);
  if (!enabled || colour == Colour::kNone) return safe;
  return fmt::format("{}{}\x1b[0m", start_of(colour), safe);
}

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): single-threaded
  return value == nullptr ? "" : value;
}

// Columns that a string takes on a terminal, good enough for Latin names: UTF-8 code points.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

}  // namespace

Output Output::detect() {
  std::setlocale(LC_CTYPE, "");  // NOLINT(concurrency-mt-unsafe): single-threaded
  Output output;
  const bool utf8 = std::string_view(::nl_langinfo(CODESET)) == "UTF-8";
  const bool out_terminal = ::isatty(1) == 1;
  const bool error_terminal = ::isatty(2) == 1;
  const bool colourful = environment("NO_COLOR").empty() && environment("TERM") != "dumb";
  output.marks_ = !out_terminal || utf8;
  output.colours_ = out_terminal && colourful;
  output.error_colours_ = error_terminal && colourful;
  output.interactive_ = ::isatty(0) == 1 && error_terminal;
  return output;
}

void Output::write_line(int fd, std::string_view line) {
  // Whoever reads us may have gone (`agent-vm list | head`): nothing to tell anybody then.
  static_cast<void>(write_all(fd, std::string(line) + "\n"));
}

void Output::json(const nlohmann::ordered_json& value) {
  if (!json_mode) return;
  write_line(1, value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

void Output::error(const Error& error) {
  if (json_mode) {
    json({{"error",
           {{"kind", to_string(error.kind())},
            {"message", error.message()},
            {"hint", error.hint()},
            {"evidence", error.evidence()}}}});
    return;
  }
  write_line(
      2, painted(Colour::kRed, "error:", error_colours_) + " " + escape_control(error.message()));
  for (const auto& line : error.evidence()) write_line(2, "  | " + escape_line(line));
  if (!error.hint().empty()) {
    write_line(
        2, painted(Colour::kBold, "hint:", error_colours_) + " " + escape_control(error.hint()));
  }
  if (show_trail) {
    for (const auto& place : error.trail()) write_line(2, "  at " + place);
  }
}

std::string Output::paint(Colour colour, std::string_view text) const {
  return painted(colour, text, colours_);
}

std::string Output::mark(std::string_view utf8) const {
  return marks_ ? fmt::format("{} ", utf8) : "";
}

void Output::table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], width_of(escape_line(row[i])));
    }
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string cell = escape_line(row[i]);
      line += cell;
      if (i + 1 < row.size()) line.append(widths[i] - width_of(cell) + 2, ' ');
    }
    print("{}", &row == &rows.front() ? paint(Colour::kBold, line) : line);
  }
}

bool Output::confirm(std::string_view question) {
  if (!interactive_) return false;
  static_cast<void>(write_all(2, fmt::format("{} [y/N] ", escape_control(question))));
  std::string answer;
  char byte = 0;
  while (::read(0, &byte, 1) == 1 && byte != '\n') answer += byte;
  const auto word = trim(answer);
  return word == "y" || word == "Y" || word == "yes";
}

}  // namespace agent_vm

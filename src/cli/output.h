// What a verb prints: facts on stdout, for people or as JSON; everything else on stderr.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace agent_vm {

enum class Colour { kNone, kGreen, kYellow, kRed, kBold, kDim };

class Output {
 public:
  // Looks at the terminal, the locale, NO_COLOR and TERM.
  static Output detect();

  // Set by --json: print() is silent then, and json() prints.
  bool json_mode = false;
  // Set by --debug: errors show the source locations they passed through.
  bool show_trail = false;

  // A line for people on stdout. What a guest or a repository chose goes through escape_line(),
  // paint() or table() first (S25).
  template <typename... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) {
    if (!json_mode) write_line(1, fmt::format(format, std::forward<Args>(args)...));
  }
  // A line for people on stderr: progress, warnings, what happens next.
  template <typename... Args>
  void note(fmt::format_string<Args...> format, Args&&... args) {
    write_line(2, fmt::format(format, std::forward<Args>(args)...));
  }
  // The facts for programs; only in json_mode.
  void json(const nlohmann::ordered_json& value);

  // "error: ...", the evidence and the hint on stderr; in json_mode an object on stdout instead.
  void error(const Error& error);

  // `text`, with control bytes escaped, in a colour when stdout is a terminal that has them.
  std::string paint(Colour colour, std::string_view text) const;
  // The mark and a space, or nothing on a terminal that cannot show it. Into a pipe it goes
  // always: scripts look for it.
  std::string mark(std::string_view utf8) const;

  // Columns padded to their widest cell; the first row is the heading. Cells are escaped.
  void table(const std::vector<std::vector<std::string>>& rows);

  // Whether somebody can be asked.
  bool interactive() const { return interactive_; }
  // Asks "question [y/N] "; false when there is nobody to ask.
  bool confirm(std::string_view question);

 private:
  static void write_line(int fd, std::string_view line);

  bool marks_ = false;
  bool colours_ = false;
  bool error_colours_ = false;
  bool interactive_ = false;
};

}  // namespace agent_vm

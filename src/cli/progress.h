// One line that says what a command waits for: rewritten in place on a terminal, a new line per
// step elsewhere.
#pragma once

#include <string>

#include "cli/output.h"

namespace agent_vm {

class ProgressLine {
 public:
  explicit ProgressLine(Output& out);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // `text` may be a guest's words: it is escaped.
  void show(const std::string& step, const std::string& text);

 private:
  Output& out_;
  bool terminal_;
  bool shown_ = false;
  std::string step_;
};

}  // namespace agent_vm

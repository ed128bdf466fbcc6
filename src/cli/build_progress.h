// Shows the progress of an image build on stderr: a bar on a terminal, a line for each step
// otherwise.
#pragma once

#include <chrono>
#include <string>

#include "image/progress.h"

namespace agent_vm {

class ConsoleProgress final : public Progress {
 public:
  explicit ConsoleProgress(bool terminal) : terminal_(terminal) {}
  ConsoleProgress(const ConsoleProgress&) = delete;
  ConsoleProgress& operator=(const ConsoleProgress&) = delete;
  // Leaves the cursor on a line of its own.
  ~ConsoleProgress() override;

  // Whether stderr can show a bar.
  static bool on_terminal();

  void step(std::string_view what) override;
  void fraction(double done) override;
  void note(std::string_view text) override;

 private:
  using Clock = std::chrono::steady_clock;
  void draw();
  void finish_line();

  bool terminal_;
  std::string step_;
  double fraction_ = 0;
  Clock::time_point started_;
  Clock::time_point drawn_;
};

}  // namespace agent_vm

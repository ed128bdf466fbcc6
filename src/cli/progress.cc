#include "cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include "base/text.h"
#include "os/files.h"

namespace agent_vm {
namespace {

std::size_t terminal_width() {
  winsize size{};
  return ::ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 10 ? size.ws_col : 80;
}

}  // namespace

ProgressLine::ProgressLine(Output& out) : out_(out), terminal_(::isatty(2) != 0) {}

ProgressLine::~ProgressLine() {
  if (shown_) static_cast<void>(write_all(2, "\r\033[K"));
}

void ProgressLine::show(const std::string& step, const std::string& text) {
  if (terminal_) {
    std::string line = "… " + escape_line(text);
    // Our texts are ASCII but for the mark, so bytes less two are columns.
    if (line.size() > terminal_width()) line.resize(terminal_width());
    static_cast<void>(write_all(2, "\r\033[K" + line));
    shown_ = true;
  } else if (step != step_) {
    out_.note("{}", escape_line(text));
  }
  step_ = step;
}

}  // namespace agent_vm

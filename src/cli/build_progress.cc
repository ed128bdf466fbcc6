#include "cli/build_progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/text.h"
#include "os/files.h"

namespace agent_vm {
namespace {

constexpr std::size_t kBarWidth = 24;
constexpr std::chrono::milliseconds kRedraw{100};

void write_error(std::string_view text) {
  static_cast<void>(write_all(2, text));
}

std::size_t columns() {
  winsize size{};
  if (::ioctl(2, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

bool ConsoleProgress::on_terminal() {
  const char* term = std::getenv("TERM");  // NOLINT(concurrency-mt-unsafe): single-threaded
  return ::isatty(2) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

ConsoleProgress::~ConsoleProgress() {
  finish_line();
}

void ConsoleProgress::step(std::string_view what) {
  finish_line();
  step_ = what;
  fraction_ = 0;
  started_ = Clock::now();
  if (terminal_) {
    draw();
  } else {
    write_error(fmt::format("{}...\n", step_));
  }
}

void ConsoleProgress::fraction(double done) {
  fraction_ = std::clamp(done, 0.0, 1.0);
  if (terminal_ && Clock::now() - drawn_ >= kRedraw) draw();
}

void ConsoleProgress::note(std::string_view text) {
  // The bar, if there is one, makes room and comes back below.
  write_error(
      fmt::format("{}{}\n", terminal_ && !step_.empty() ? "\r\x1b[K" : "", escape_line(text)));
  if (terminal_ && !step_.empty()) draw();
}

void ConsoleProgress::draw() {
  const auto filled = static_cast<std::size_t>(fraction_ * static_cast<double>(kBarWidth));
  std::string line = fmt::format("[{}{}] {:3.0f}%  {}", std::string(filled, '#'),
                                 std::string(kBarWidth - filled, '.'), fraction_ * 100, step_);
  line.resize(std::min(line.size(), columns() - 1));
  write_error(fmt::format("\r{}\x1b[K", line));
  drawn_ = Clock::now();
}

void ConsoleProgress::finish_line() {
  if (terminal_ && !step_.empty()) {
    const auto took = std::chrono::duration<double>(Clock::now() - started_).count();
    write_error(fmt::format("\r{} ({:.1f} s)\x1b[K\n", step_, took));
  }
  step_.clear();
}

}  // namespace agent_vm

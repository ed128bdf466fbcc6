#include "cli/log_follower.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/text.h"
#include "cli/escaping_pipe.h"
#include "os/files.h"

namespace agent_vm {
namespace {

constexpr std::size_t kMaxLog = 64U << 20U;  // the writers rotate long before

// False when stdout has gone.
bool print(std::string_view text, const LineFormat& format) {
  if (!format) return write_all(1, harmless(text)).has_value();
  std::string lines;
  for (const auto& line : split_lines(text)) lines += format(line) + "\n";
  return write_all(1, lines).has_value();
}

std::string read_or_nothing(const VmDirectory& vm, const std::string& path) {
  return read_file_at(vm.fd(), path, kMaxLog).value_or("");
}

std::string last_lines(std::string_view text, std::uint64_t lines) {
  if (lines == 0) return "";
  std::size_t at = text.size();
  if (at > 0 && text[at - 1] == '\n') --at;
  for (std::uint64_t seen = 0; at > 0; --at) {
    if (text[at - 1] == '\n' && ++seen == lines) break;
  }
  return std::string(text.substr(at));
}

class Follower {
 public:
  Follower(const VmDirectory& vm, const LogFile& file, const LineFormat& format)
      : vm_(vm), file_(file), format_(format) {}

  // Watches the folder first and reads then, so that nothing falls in between.
  Status begin(std::uint64_t lines) {
    watch_ = Fd(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    const std::string folder = file_.current.substr(0, file_.current.rfind('/'));
    folder_ = TRY(open_beneath(vm_.fd(), folder, O_RDONLY | O_DIRECTORY));
    if (::inotify_add_watch(watch_.get(), proc_fd_path(folder_.get()).c_str(),
                            IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM) < 0) {
      return fail_errno(errno, "cannot watch {}", folder);
    }
    reopen();
    std::string text = open_ ? TRY(read_all(open_.get(), kMaxLog)) : "";
    hold_back(text);
    going_ = print(last_lines(read_or_nothing(vm_, file_.older) + text, lines), format_);
    return {};
  }

  Status follow(const Deadline& deadline) {
    while (going_) {
      pollfd waits{watch_.get(), POLLIN, 0};
      const int ready = ::poll(&waits, 1, deadline.poll_ms());
      if (ready < 0 && errno != EINTR) return fail_errno(errno, "cannot wait");
      if (ready == 0 && deadline.expired()) return {};
      std::array<char, 4096> events{};
      while (::read(watch_.get(), events.data(), events.size()) > 0) {
      }
      TRY(print_new());
    }
    return {};
  }

 private:
  void reopen() {
    auto opened = open_beneath(vm_.fd(), file_.current, O_RDONLY);
    if (opened) open_ = std::move(*opened);
  }

  Status print_new() {
    TRY(drain());
    struct stat ours {};
    struct stat named {};
    // Another file of that name: rotated, or a new run's.
    if (::fstatat(vm_.fd(), file_.current.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0) return {};
    if (open_ && ::fstat(open_.get(), &ours) == 0 && ours.st_ino == named.st_ino) {
      if (::lseek(open_.get(), 0, SEEK_CUR) > ours.st_size) ::lseek(open_.get(), 0, SEEK_SET);
      return drain();
    }
    reopen();
    return drain();
  }

  Status drain() {
    if (!open_) return {};
    std::string text = held_ + TRY(read_all(open_.get(), kMaxLog));
    hold_back(text);
    if (!text.empty()) going_ = print(text, format_);
    return {};
  }

  // Until the rest of it comes: what a format can be made of only as a whole, or a character.
  void hold_back(std::string& text) {
    const auto newline = text.rfind('\n');
    const std::size_t whole = !format_                       ? text.size() - incomplete_tail(text)
                              : newline == std::string::npos ? 0
                                                             : newline + 1;
    held_ = text.substr(whole);
    text.resize(whole);
  }

  const VmDirectory& vm_;
  const LogFile& file_;
  const LineFormat& format_;
  Fd watch_;
  Fd folder_;
  Fd open_;
  std::string held_;
  bool going_ = true;
};

}  // namespace

Status print_log(const VmDirectory& vm, const LogFile& file, std::uint64_t lines, bool follow,
                 const Deadline& deadline, const LineFormat& format) {
  if (!follow) {
    const std::string current = TRY(read_file_at(vm.fd(), file.current, kMaxLog));
    print(last_lines(read_or_nothing(vm, file.older) + current, lines), format);
    return {};
  }
  Follower follower(vm, file, format);
  TRY(follower.begin(lines));
  return follower.follow(deadline);
}

}  // namespace agent_vm

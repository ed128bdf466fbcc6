#include "supervise/capped_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>

#include "base/log.h"
#include "os/files.h"

namespace agent_vm {
namespace {
constexpr std::size_t kRecentLines = 100;
constexpr std::size_t kLongestLine = 1000;
}  // namespace

CappedLog::CappedLog(int directory, std::string name, std::size_t max_bytes)
    : directory_(::fcntl(directory, F_DUPFD_CLOEXEC, 3)),
      name_(std::move(name)),
      max_bytes_(max_bytes) {
  rotate();
}

void CappedLog::rotate() {
  struct stat info {};
  if (::fstatat(directory_.get(), name_.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
      info.st_size > 0) {
    static_cast<void>(
        ::renameat(directory_.get(), name_.c_str(), directory_.get(), (name_ + ".1").c_str()));
  }
  size_ = 0;
  auto file = open_beneath(directory_.get(), name_, O_WRONLY | O_CREAT | O_APPEND | O_TRUNC, 0600);
  // A log that cannot be written is not a reason to stop the VM: recent lines stay in memory.
  if (!file) log::warn("{}", file.error().message());
  file_ = file ? std::move(*file) : Fd();
}

void CappedLog::append(std::string_view bytes) {
  if (size_ + bytes.size() > max_bytes_) rotate();
  if (file_ && write_all(file_.get(), bytes)) size_ += bytes.size();
  for (const char c : bytes) {
    if (c != '\n' && partial_.size() < kLongestLine) {
      if (c != '\r') partial_ += c;
      continue;
    }
    recent_.push_back(std::exchange(partial_, {}));
    if (recent_.size() > kRecentLines) recent_.pop_front();
  }
}

std::vector<std::string> CappedLog::tail(std::size_t lines) const {
  std::vector<std::string> last(recent_.begin(), recent_.end());
  if (!partial_.empty()) last.push_back(partial_);
  if (last.size() > lines)
    last.erase(last.begin(), last.end() - static_cast<std::ptrdiff_t>(lines));
  return last;
}

Task<void> pump_into(asio::io_context& io, Fd source, std::shared_ptr<CappedLog> log) {
  ::fcntl(source.get(), F_SETFL, O_NONBLOCK);
  asio::posix::stream_descriptor descriptor(io, source.release());
  std::array<char, 16384> buffer{};
  while (true) {
    const auto [error, got] = co_await descriptor.async_read_some(
        asio::buffer(buffer), asio::as_tuple(asio::use_awaitable));
    if (error) co_return;
    log->append(std::string_view(buffer.data(), got));
  }
}

}  // namespace agent_vm

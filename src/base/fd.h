// The only owner of file descriptors.
#pragma once

#include <unistd.h>

#include <utility>

namespace agent_vm {

// Move-only. Every descriptor is made CLOEXEC where it is opened (O_CLOEXEC, SOCK_CLOEXEC, ...);
// what a child inherits is listed in its SpawnSpec and nothing else gets through.
class Fd {
 public:
  Fd() = default;
  // Takes ownership; -1 is "none".
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  // Gives ownership up.
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

}  // namespace agent_vm

// epoll with one token per descriptor.
#pragma once

#include <sys/epoll.h>

#include <cstdint>

#include "agent/guest/error.h"
#include "agent/guest/fd.h"

namespace bunker::guest {

class Poller {
 public:
  Poller() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

  // Adds `fd`. `events` as epoll_ctl(2).
  Error Add(int fd, uint32_t events, uint64_t token) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = token;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return ErrnoError("epoll add");
    return {};
  }
  void Remove(int fd) { epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

  // As epoll_wait(2); an interrupted wait is 0 events.
  int Wait(epoll_event* events, int capacity, int timeout_ms) {
    const int count = epoll_wait(epoll_.get(), events, capacity, timeout_ms);
    return count < 0 ? 0 : count;
  }

 private:
  Fd epoll_;
};

// A descriptor that is in a Poller only while somebody wants to hear of it: a closed pipe would
// otherwise be reported again and again.
class Watched {
 public:
  Watched() = default;
  Watched(Poller* poller, Fd fd, uint32_t events, uint64_t token)
      : poller_(poller), fd_(std::move(fd)), events_(events), token_(token) {}
  Watched(Watched&& other) noexcept
      : poller_(other.poller_),
        fd_(std::move(other.fd_)),
        events_(other.events_),
        token_(other.token_),
        on_(std::exchange(other.on_, false)) {}
  Watched& operator=(Watched&& other) noexcept {
    if (this == &other) return *this;
    Close();
    poller_ = other.poller_;
    fd_ = std::move(other.fd_);
    events_ = other.events_;
    token_ = other.token_;
    on_ = std::exchange(other.on_, false);
    return *this;
  }
  ~Watched() { Close(); }

  int fd() const { return fd_.get(); }
  bool open() const { return fd_.valid(); }
  void Watch(bool on) {
    if (on == on_ || !fd_.valid()) return;
    if (on && !poller_->Add(fd_.get(), events_, token_).ok()) return;
    if (!on) poller_->Remove(fd_.get());
    on_ = on;
  }
  void Close() {
    Watch(false);
    fd_.Close();
  }
  // The descriptor, no longer watched.
  Fd Release() {
    Watch(false);
    return std::move(fd_);
  }

 private:
  Poller* poller_ = nullptr;
  Fd fd_;
  uint32_t events_ = 0;
  uint64_t token_ = 0;
  bool on_ = false;
};

}  // namespace bunker::guest

#include "common/loop/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include "common/base/log.h"
#include "common/base/reason.h"

namespace bunker {
namespace {

constexpr int kMaxEvents = 64;

int64_t MonotonicNanos() {
  timespec ts{};
  BUNKER_CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
  return int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

uint32_t ToEpoll(uint32_t interest) {
  uint32_t events = 0;
  if (interest & EventLoop::kReadable) events |= EPOLLIN;
  if (interest & EventLoop::kWritable) events |= EPOLLOUT;
  return events;
}

uint32_t FromEpoll(uint32_t events) {
  uint32_t ready = 0;
  if (events & EPOLLIN) ready |= EventLoop::kReadable;
  if (events & EPOLLOUT) ready |= EventLoop::kWritable;
  if (events & (EPOLLERR | EPOLLHUP)) ready |= EventLoop::kError;
  return ready;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Create() {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return ErrnoError(errno, "epoll_create1");
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return ErrnoError(errno, "eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wake.get();
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0) {
    return ErrnoError(errno, "epoll_ctl");
  }
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(wake)));
}

EventLoop::EventLoop(UniqueFd epoll, UniqueFd wake)
    : epoll_(std::move(epoll)), wake_(std::move(wake)), thread_(std::this_thread::get_id()) {}

EventLoop::~EventLoop() = default;

bool EventLoop::OnLoop() const {
  return thread_.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

void EventLoop::Run() {
  thread_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  while (!stop_.load(std::memory_order_acquire)) {
    Dispatch(WaitMillis());
    RunTimers();
    RunTasks();
  }
}

void EventLoop::Stop() {
  stop_.store(true, std::memory_order_release);
  Wake();
}

void EventLoop::Wake() {
  const uint64_t one = 1;
  // EAGAIN means that the counter is full: the loop is awake already.
  const ssize_t written = write(wake_.get(), &one, sizeof(one));
  BUNKER_CHECK(written == static_cast<ssize_t>(sizeof(one)) || errno == EAGAIN);
}

void EventLoop::Post(Task task) {
  bool wake = false;
  {
    MutexLock lock(mutex_);
    inbox_.push_back(std::move(task));
    pending_.fetch_add(1, std::memory_order_relaxed);
    wake = !wake_sent_;
    wake_sent_ = true;
  }
  if (wake) Wake();
}

void EventLoop::RunTasks() {
  std::vector<Task> tasks;
  {
    MutexLock lock(mutex_);
    tasks.swap(inbox_);
    wake_sent_ = false;
  }
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (stop_.load(std::memory_order_acquire)) {
      // What was not run is destroyed with the loop, as what is posted later.
      MutexLock lock(mutex_);
      inbox_.insert(inbox_.begin(), std::make_move_iterator(tasks.begin() + i),
                    std::make_move_iterator(tasks.end()));
      return;
    }
    Task task = std::move(tasks[i]);
    task();
    pending_.fetch_sub(1, std::memory_order_relaxed);
  }
}

EventLoop::TimerId EventLoop::AddTimer(absl::Duration delay, Task task) {
  BUNKER_CHECK(OnLoop());
  const TimerId id = next_timer_++;
  const int64_t delay_ns = std::max<int64_t>(0, absl::ToInt64Nanoseconds(delay));
  const int64_t now = MonotonicNanos();
  const int64_t due = delay_ns > std::numeric_limits<int64_t>::max() - now
                          ? std::numeric_limits<int64_t>::max()
                          : now + delay_ns;
  timers_.emplace(std::make_pair(due, id), std::move(task));
  timer_due_.emplace(id, due);
  return id;
}

void EventLoop::CancelTimer(TimerId id) {
  BUNKER_CHECK(OnLoop());
  const auto it = timer_due_.find(id);
  if (it == timer_due_.end()) return;
  timers_.erase({it->second, id});
  timer_due_.erase(it);
}

int EventLoop::WaitMillis() const {
  if (timers_.empty()) return -1;
  const int64_t left = timers_.begin()->first.first - MonotonicNanos();
  if (left <= 0) return 0;
  // Rounded up, so that the loop does not spin through the last millisecond.
  return static_cast<int>(std::min<int64_t>((left + 999'999) / 1'000'000, 3'600'000));
}

void EventLoop::RunTimers() {
  // Timers that a timer adds wait for the next round, or a zero delay could starve the rest.
  const int64_t now = MonotonicNanos();
  const TimerId last = next_timer_;
  while (!timers_.empty() && timers_.begin()->first.first <= now &&
         !stop_.load(std::memory_order_acquire)) {
    const auto it = timers_.begin();
    if (it->first.second >= last) return;
    Task task = std::move(it->second);
    timer_due_.erase(it->first.second);
    timers_.erase(it);
    task();
  }
}

absl::Status EventLoop::WatchFd(int fd, uint32_t interest, FdCallback callback) {
  BUNKER_CHECK(OnLoop());
  epoll_event event{};
  event.events = ToEpoll(interest);
  event.data.fd = fd;
  const bool known = watches_.count(fd) > 0;
  if (epoll_ctl(epoll_.get(), known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0) {
    return ErrnoError(errno, "watching a file descriptor");
  }
  watches_[fd] = std::make_shared<FdCallback>(std::move(callback));
  return absl::OkStatus();
}

void EventLoop::UnwatchFd(int fd) {
  BUNKER_CHECK(OnLoop());
  if (watches_.erase(fd) == 0) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void EventLoop::Dispatch(int timeout_ms) {
  std::array<epoll_event, kMaxEvents> events;
  const int count = epoll_wait(epoll_.get(), events.data(), kMaxEvents, timeout_ms);
  if (count < 0) {
    BUNKER_CHECK(errno == EINTR);
    return;
  }
  // Callbacks run only if they are still the one that was watched when the events were fetched: an
  // earlier one may have closed a descriptor whose number was taken again at once.
  std::vector<std::pair<std::shared_ptr<FdCallback>, uint32_t>> ready;
  std::vector<int> fds;
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    if (event.data.fd == wake_.get()) {
      uint64_t drained = 0;
      BUNKER_CHECK(read(wake_.get(), &drained, sizeof(drained)) >= 0 || errno == EAGAIN);
      continue;
    }
    const auto it = watches_.find(event.data.fd);
    if (it == watches_.end()) continue;
    ready.emplace_back(it->second, FromEpoll(event.events));
    fds.push_back(event.data.fd);
  }
  for (size_t i = 0; i < ready.size(); ++i) {
    const auto it = watches_.find(fds[i]);
    if (it != watches_.end() && it->second == ready[i].first) (*ready[i].first)(ready[i].second);
  }
}

}  // namespace bunker
